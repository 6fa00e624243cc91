"""How this project's loops become machine code: Numba's options, and where it keeps what it compiled.

Numba notices a change of the file that a function stands in, but not of the functions which that one calls elsewhere.
So the code is kept in a folder named after the contents of all these files: an edit or another Git branch never meets
machine code made from other sources, and copies of the repository that set NUMBA_CACHE_DIR alike share it.
"""

import hashlib
import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile, gettempdir, mkdtemp

import numba
from numba.core.caching import InTreeCacheLocator

HERE = Path(__file__).resolve().parent
SOURCES = ("jit.py", "simd.py", "project.py", "composite.py", "../thresholds.py")

digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()[:16]


@cache
def writable_folder() -> Path:
    """Where compiled code is kept: NUMBA_CACHE_DIR, or beside this file; where nothing can be written there, as in another
    user's or a read-only checkout, a folder of one's own among temporary files."""
    wanted = Path(numba.config.CACHE_DIR or HERE / "__pycache__")
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=wanted):
            return wanted
    except OSError:
        own = Path(gettempdir()) / f"backsplat-{os.getuid()}"
        own.mkdir(mode=0o700, exist_ok=True)
        if own.is_symlink() or own.stat().st_uid != os.getuid():  # somebody else's machine code would be run
            return Path(mkdtemp(prefix="backsplat-"))
        return own


class Locator(InTreeCacheLocator):
    """The folder named after the sources, wherever they lie; Numba's own locators tell copies apart by their paths."""

    def get_cache_path(self) -> str:
        return str(writable_folder() / f"numba-{digest}")


numba.config.CACHE_LOCATOR_CLASSES = "src.splatting.cpu.jit.Locator"

COMPILED = {"cache": True, "error_model": "numpy"}  # error_model: a division by zero gives inf or nan, not an exception
