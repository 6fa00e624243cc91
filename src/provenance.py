"""Where a number comes from: seeds, hashes of what went in, versions. No dates, no paths: results repeat byte for byte."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from src.folders import write_whole

PACKAGES = ("torch", "torchvision", "timm", "gsplat", "lightning", "numba", "numpy", "trimesh", "embreex")


def fix_computation(threads: int) -> None:
    """Make torch repeat itself bit for bit: `threads` CPU threads, deterministic kernels, no TF32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True) without importing the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # a help for finding bugs, which costs time
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def seed_of(seed: int, *names: object) -> int:
    """A seed in [0, 2^63) for one purpose, e.g. seed_of(0, "train", epoch, index); equal names give equal seeds."""
    digest = hashlib.sha256(json.dumps([seed, *map(str, names)]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, *names: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, *names))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, *names))


def params_hash(*sections: object) -> str:
    """16 hex digits that name the values of configuration sections (dataclasses or plain JSON values)."""
    plain = [asdict(section) if is_dataclass(section) else section for section in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def module_hashes(prefix: str) -> dict[str, str]:
    """SHA-256 by name of the loaded modules whose names begin so: what they make must not be taken for another code's."""
    return {name: file_hash(module.__file__) for name, module in sorted(sys.modules.items())
            if name.startswith(prefix) and getattr(module, "__file__", None)}


def versions() -> dict[str, str]:
    """Versions of what computes; the same on every run of one environment."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def git_revision(root: str | Path = ".") -> str | None:
    """Commit of the work tree, with "-dirty" when files that git tracks differ; None outside Git."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None


def write_json(path: str | Path, content: object) -> None:
    """Canonical JSON (sorted keys, no NaN), in place atomically."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")


def read_json(path: str | Path) -> dict:
    return json.loads(Path(path).read_text(encoding="utf8"))
