"""Compose a Hugging Face Space that serves the demonstration; nothing is uploaded.

    python -m src.space FOLDER

The new folder holds what Git tracks of space/ (README.md with the Space's header, app.py, Dockerfile), of src/, and of the
shipped model, params.yaml, LICENSE and the lists of requirements, each as it lies in the work tree.
"""

import argparse
import shutil
import sys
from pathlib import Path

from src.reproducible.files import fresh_folder
from src.reproducible.versions import git_output
from src.run import Words, mistakes_explained

OWN = Path("space")  # its files come to the top of the Space
TAKEN = (
    "LICENSE",
    "data/bundled/geometry.safetensors",
    "data/bundled/splatt3r",
    "params.yaml",
    "requirements-viewer.txt",
    "requirements.txt",
    "src",
)


def compose(folder: Path) -> int:
    """Write the Space into a folder that is not there yet; how many files.

    raises    ValueError  when the folder exists; FileNotFoundError when Git or a file is missing
    """
    if folder.exists():
        raise ValueError(f"{folder} exists; name a folder that does not, or remove it.")
    listed = git_output(".", "ls-files", "-z", "--", OWN.as_posix(), *TAKEN)
    names = [name for name in (listed or "").split("\0") if name]
    if not names:
        raise FileNotFoundError(
            "Git lists no files of a Space here; run from the top folder of a clone of the repository."
        )
    with fresh_folder(folder) as new:
        for name in names:
            path = Path(name)
            place = new / (path.relative_to(OWN) if path.is_relative_to(OWN) else path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return len(names)


def arguments(words: list[str]) -> argparse.Namespace:
    parser = Words("space")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    return parser.parse_args(words)


def main(words: list[str]) -> None:
    asked = arguments(words)
    with mistakes_explained():
        count = compose(asked.folder)
    print(
        f"{asked.folder}: {count} files; python app.py in it serves the demonstration, and a push to a Space publishes it"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
