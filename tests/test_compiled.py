from pathlib import Path

import numba

from src import compiled, tiles


def test_every_file_with_compiled_code_names_the_cache_folder():
    """A file left out could change without its machine code being made anew."""
    found = {path.name for path in compiled.HERE.glob("*.py")
             if "from numba" in path.read_text(encoding="utf8") or "import numba" in path.read_text(encoding="utf8")}
    assert found - {"rasterize_cpu.py"} == set(compiled.SOURCES)  # which only asks for threads
    assert "njit" not in (compiled.HERE / "rasterize_cpu.py").read_text(encoding="utf8")


def test_machine_code_is_kept_in_a_folder_named_after_the_sources():
    assert Path(numba.config.CACHE_DIR).name == f"numba-{compiled.digest}"
    assert f"numba-{compiled.digest}" in tiles.composite.stats.cache_path
