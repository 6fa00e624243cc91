"""What computed a result: versions of packages, and the commit of the work tree."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "gsplat", "lightning", "numba", "numpy", "trimesh", "embreex")


def versions() -> dict[str, str]:
    """Versions of what computes; the same on every run of one environment."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def git_output(root: str | Path, *words: str) -> str | None:
    """Output of a git command; None when it fails or there is no Git.

    raises    ValueError in Git's words where it refuses another user's repository
    """
    try:
        return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, encoding="utf8").stdout
    except subprocess.CalledProcessError as error:
        if "dubious ownership" in error.stderr:
            said = " ".join(error.stderr.removeprefix("fatal: ").split())
            raise ValueError(f"Git refuses this repository: {said}") from error
        return None
    except FileNotFoundError:
        return None


def git_revision(root: str | Path = ".") -> str | None:
    """Commit of the work tree, with "-dirty" when files that git tracks differ; None outside Git."""
    if (commit := git_output(root, "rev-parse", "HEAD")) is None:
        return None
    return commit.strip() + ("-dirty" if git_output(root, "status", "--porcelain", "--untracked-files=no") else "")
