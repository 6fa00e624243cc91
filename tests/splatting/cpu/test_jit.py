import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba

from src.splatting.cpu import composite, jit


def test_every_file_with_compiled_code_names_the_cache_folder():
    """A file left out could change without its machine code being made anew."""
    found = {
        path.name
        for path in jit.HERE.glob("*.py")
        if any(line in path.read_text(encoding="utf8") for line in ("from numba", "import numba"))
    }
    asking_for_threads = {"rasterize.py"}
    assert found - asking_for_threads == set(jit.SOURCES) - {"../thresholds.py"}
    for name in asking_for_threads:
        assert "njit" not in (jit.HERE / name).read_text(encoding="utf8")


def test_machine_code_is_kept_in_a_folder_named_after_the_sources():
    assert (
        Path(composite.composite.stats.cache_path)
        == Path(numba.config.CACHE_DIR or jit.HERE / "__pycache__") / f"numba-{jit.digest}"
    )


def test_compiled_code_is_kept_elsewhere_where_its_folder_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # no folder can be made below it, whoever runs this
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file/cache"))
    monkeypatch.setattr(jit, "gettempdir", lambda: str(tmp_path))
    jit.writable_folder.cache_clear()
    try:
        found = jit.writable_folder()
        assert found == tmp_path / f"backsplat-{os.getuid()}" and found.stat().st_mode & 0o777 == 0o700
        jit.writable_folder.cache_clear()
        found.rmdir()
        found.symlink_to(tmp_path)  # somebody else's
        assert jit.writable_folder() not in (found, tmp_path)
    finally:
        jit.writable_folder.cache_clear()


DEAL = """
import numpy as np
from src.splatting.cpu.composite import deal
print(deal(np.array([1, 0]), np.array([[0, 0, 2, 1], [1, 0, 2, 1]]), 2, 1)[1].tolist())
print(sum(deal.stats.cache_hits.values()), sum(deal.stats.cache_misses.values()))
"""


def test_copies_of_the_repository_share_machine_code_until_a_source_changes(tmp_path):
    outputs = []
    for name in ("one", "other", "changed"):
        copy = tmp_path / name / "src/splatting"
        shutil.copytree(jit.HERE.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if name == "changed":
            with open(copy / "cpu/project.py", "a") as file:
                file.write("# another version\n")
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "shared")}
        result = subprocess.run(
            [sys.executable, "-c", DEAL], cwd=tmp_path / name, env=environment, capture_output=True, text=True
        )
        outputs.append(result.stdout.splitlines())
    assert outputs == [["[0, 1, 0]", "0 1"], ["[0, 1, 0]", "1 0"], ["[0, 1, 0]", "0 1"]]
    assert len(list((tmp_path / "shared").iterdir())) == 2
