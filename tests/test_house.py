"""House rules: where code lives, what may import what, and what a stage of dvc.yaml says that it depends on."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from src.experiments.protocol import SCORING_STAGES
from tests.helpers.repository import ROOT, UNHASHED, imports, reached, room

STAGES = {
    "check": "check",
    "download": "download",
    "weights": "weights",
    "prepare": "prepare",
    "extract_geometry": "extract",
    "extract_backbone": "extract",
    "probe": "probe",
    "train": "train",
    "render": "render",
    "evaluate": "evaluate",
    "real_pair": "real_pair",
    "benchmark": "benchmark",
    "report": "report",
}
ONE_FILE = {"train": "src/metrics/image.py"}  # another metric of the room trains nothing again
NO_COMMANDS = {"src/__init__.py", "src/config.py", "src/run.py"}
PAIRED = {"distill": "pretraining/distillation", "test_pipeline_co3d": "", "test_pipeline": ""}
FOLDERS = {
    "RAW",
    "SCENES",
    "WEIGHTS",
    "FEATURES",
    "MODEL",
    "RENDERS",
    "EVAL",
    "SCRATCH",
    "READOUT",
    "PROBE",
    "REAL_PAIR",
}  # where stages read and write
COMMANDS = {"main", "arguments"}  # what each has of its own
TWINS = {"rasterize", "composite_tile"}  # the rasteriser, and the obvious one that it is measured against
ENDINGS = r"(s|es|ed|er|r|ing|ion|d)"


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py"))


def pipeline() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def rooms_reached(stage: str) -> set[str]:
    """What a stage must name: the rooms of all files that it reaches, or the one file that it reaches of a room."""
    beyond = {"src/__init__.py"} if stage == "check" else {"src/__init__.py"} | UNHASHED
    found = reached(f"src/{STAGES[stage]}.py", beyond)
    if stage == "report":  # which names the code of the scores
        found = found | {file for scoring in SCORING_STAGES for file in reached(f"src/{STAGES[scoring]}.py", beyond)}
    one = ONE_FILE.get(stage, "")
    rest = {room(file) for file in found if file != one and not (one and file == f"{room(one)}/__init__.py")}
    return rest | ({one} if one else set())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_rooms_it_reaches(stage):
    declared = {dep for dep in pipeline()[stage]["deps"] if dep.startswith("src/")}
    assert declared == rooms_reached(stage) - ({"src/run.py"} if stage == "check" else set())


def test_only_what_can_be_run_stands_beside_the_rooms():
    commands = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "src").glob("*.py")}
    assert {name for name, text in commands.items() if '__name__ == "__main__"' not in text} == NO_COMMANDS


def test_a_room_s_face_defines_nothing():
    for file in files("src"):
        if file.endswith("/__init__.py") and file != "src/__init__.py":
            text = (ROOT / file).read_text()
            assert len(text.splitlines()) < 40, file
            for node in ast.parse(text).body:
                names = isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
                assert names or isinstance(node, ast.Import | ast.ImportFrom | ast.Expr), f"{file} defines something"


def test_no_stage_imports_a_stage():
    stages = {f"src/{module}.py" for module in STAGES.values()}
    assert {stage: imports(stage) & stages for stage in stages if imports(stage) & stages} == {}


def test_no_room_imports_a_command():
    commands = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").glob("*.py")} - NO_COMMANDS
    assert {file: found for file in files("src") if file.count("/") > 1 and (found := imports(file) & commands)} == {}


def test_imports_run_in_no_circle_between_files_nor_between_rooms():
    assert [file for file in files("src") if any(file in reached(other) for other in imports(file))] == []
    below = {}
    for file in files("src"):
        if file.count("/") > 1:
            inner = {room(other) for other in imports(file) if other.count("/") > 1} - {room(file)}
            below.setdefault(room(file), set()).update(inner)
    while below:  # take away rooms that import none of those left
        floor = {name for name, inner in below.items() if not inner & below.keys()}
        assert floor, f"these rooms import each other in a circle: {sorted(below)}"
        below = {name: inner for name, inner in below.items() if name not in floor}


def test_no_two_modules_of_a_folder_differ_by_an_ending():
    folders = {Path(file).parent for file in files("src")}
    for folder in folders:
        names = sorted(path.stem for path in (ROOT / folder).glob("*.py"))
        twins = [(a, b) for a in names for b in names if a != b and re.fullmatch(re.escape(a) + ENDINGS, b)]
        assert twins == [], f"{folder}: {twins}"


def test_no_file_of_the_sources_holds_two_nouns():
    long = {file: count for file in files("src") if (count := len((ROOT / file).read_text().splitlines())) > 500}
    assert long == {}


def test_tests_stand_where_the_code_stands():
    """tests/<room>/test_<module>.py beside src/<room>/<module>.py; a module may have several: test_<module>_<what>.py."""
    lost = []
    for file in files("tests"):
        path = Path(file)
        if path.name.startswith("test_") and len(path.parts) > 2:
            folder = ROOT / "src" / Path(*path.parts[1:-1])
            modules = {module.stem for module in folder.glob("*.py")} | {"registry", "__main__"}
            stem = path.stem.removeprefix("test_")
            if not any(stem == module or stem.startswith(f"{module}_") for module in modules):
                lost.append(file)
    assert lost == []


def test_no_test_imports_a_test():
    taken = re.compile(r"^\s*(from|import) tests\.(\w+\.)*test_", re.MULTILINE)
    assert [file for file in files("tests") if taken.search((ROOT / file).read_text())] == []


def public_names(file: str) -> set[str]:
    """Functions, classes and constants that a module defines at its top; not those with an underscore."""
    names = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_no_name_is_defined_in_two_modules():
    owners: dict[str, list[str]] = {}
    for file in files("src"):
        for name in public_names(file):
            owners.setdefault(name, []).append(file)
    shared = {name for name, found in owners.items() if len(found) > 1}
    assert shared <= FOLDERS | COMMANDS | TWINS
    assert {file.rpartition("/")[0] for name in TWINS for file in owners[name]} == {
        "src/splatting",
        "src/splatting/cpu",
    }


def flat_keys(tree: dict, prefix: str = "") -> set[str]:
    return {
        key
        for name, value in tree.items()
        for key in (flat_keys(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name})
    }


def test_each_parameter_is_read_by_some_stage():
    tracked = set()
    for stage in pipeline().values():
        for entry in stage.get("params", []):
            if isinstance(entry, str):
                tracked.add(entry.replace("${data.dataset}", "procedural").replace("${model.geometry}", "tiny"))
    keys = flat_keys(yaml.safe_load((ROOT / "params.yaml").read_text()))
    other = re.compile(r"(datasets\.(?!procedural)|geometries\.(?!tiny))")
    unread = {
        key
        for key in keys
        if not other.match(key) and not any(key == name or key.startswith(f"{name}.") for name in tracked)
    }
    assert unread == set()


def test_titles_of_plots_name_no_confidence():
    """They are fixed, eval.confidence is not."""
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    titles = [plot["title"] for entry in plots if isinstance(entry, dict) for plot in entry.values()]
    assert titles and not any(re.search(r"\d %.*interval", title) for title in titles)


def test_no_file_holds_an_absolute_path_or_an_index_address():
    words = re.compile("|".join(("/work" + "/", "/root" + "/", "--(extra-)?index" + "-url", "/tmp" + "/")))
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    endings = {".py", ".yaml", ".md", ".txt", ".toml", ".html", ".json", ".lock", ".ipynb"}
    text = [name for name in names if Path(name).suffix in endings]
    assert [name for name in text if (ROOT / name).exists() and words.search((ROOT / name).read_text())] == []
