import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from src import compare, score
from src.experiments.comparisons import gather, judge
from src.page.findings import Experiments
from src.page.score_tables import leaderboard
from src.results.tables import read_rows, select_rows
from tests.helpers.repository import ROOT
from tests.helpers.submitted import publish_run, score_here

PEER = """
import json, sys
from pathlib import Path
from PIL import Image

told, out, level = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
protocol = json.loads((told / "protocol.json").read_text())
for episode in protocol["episodes"]:
    for target in episode["targets"]:
        path = out / "aligned" / target["picture"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", tuple(protocol["resolution"]), (level, level, level)).save(path)
method = json.loads((told / "method.json").read_text())
method.update(method=f"grey {level}", licence="CC0", hardware="none")
(out / "method.json").write_text(json.dumps(method))
"""


def run(capsys, *words: str, **options) -> tuple[object, str, str]:
    named = dict.fromkeys(("folder", "against", "protocol_to", "renders_to")) | options
    code = None
    try:
        score.main(*named.values())
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """This run, its protocol and renders exported, and two methods' grey pictures."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        score_here(patch, folder)
        publish_run(folder)
        shutil.copy(ROOT / "params.yaml", folder)
        score.main(None, None, "told", "own")
        for level in (128, 90):
            subprocess.run([sys.executable, "-c", PEER, "told", f"grey{level}", str(level)], check=True)
    return folder


@pytest.fixture
def here(published, tmp_path, monkeypatch) -> Path:
    """A copy of it to work in."""
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)
    score_here(monkeypatch, folder)
    return folder


def test_own_renders_exported_and_scored_give_the_pipeline_s_numbers(here, capsys):
    code, table, said = run(capsys, folder="own")
    assert code == 0 and "Written: reports/scored/backsplat-dinov2" in said
    (path,) = Path("reports/scored").glob("*/records.csv")
    ours, again = (read_rows(each.read_text()) for each in (Path("reports/records.csv"), path))
    key = lambda row: (row["episode"], row["target"], row["alignment"])
    ours, again = ({key(row): row for row in rows} for rows in (ours, again))
    assert len(ours) == 48 and ours.keys() == again.keys()
    for name, row in ours.items():
        assert row.keys() == again[name].keys()
        assert {k: v for k, v in row.items() if not k.startswith("depth")} == {
            k: v for k, v in again[name].items() if not k.startswith("depth")
        }
    assert "| ±0.00 [" in table  # over scenes and seeds: its seed counts as one that nobody shares


def test_a_peer_s_pictures_get_a_row_with_what_was_declared(here, capsys):
    code, table, said = run(capsys, folder="grey128")
    assert code == 0 and "grey 128 · scored from its pictures; weights' licence as declared: CC0" in table
    rows = select_rows(read_rows(Path("reports/scored/grey-128/records.csv").read_text()), alignment="aligned")
    assert len(rows) == 24 and len({row["scene"] for row in rows}) == 6
    one = rows[0]
    scene = score.open_scene(one["scene"]).view(one["target"], (40, 32)).image.numpy()
    wanted = -10 * np.log10(((scene - 128 / 255) ** 2).mean())
    assert one["psnr"] == pytest.approx(wanted, abs=1e-4)
    metrics = json.loads(Path("reports/scored/grey-128/metrics.json").read_text())
    by_scene = [np.mean([r["psnr_masked"] for r in rows if r["scene"] == name]) for name in {r["scene"] for r in rows}]
    assert metrics["psnr_masked"] == pytest.approx(np.mean(by_scene), abs=2e-6)
    assert "grey 128" in said and "worse" in said


def test_two_methods_are_compared_with_each_other(here, capsys):
    code, table, said = run(capsys, folder="grey128", against="grey90")
    lines = table.splitlines()
    assert code == 0 and "PSNR - grey-90 [95 %]" in lines[0] and lines[2].startswith("| grey-90 |")
    first, second = (
        {(r["episode"], r["target"]): r for r in select_rows(read_rows(path.read_text()), alignment="aligned")}
        for path in (Path("reports/scored/grey-128/records.csv"), Path("reports/scored/grey-90/records.csv"))
    )
    differences: dict[str, list[float]] = {}
    for key, row in first.items():
        differences.setdefault(row["scene"], []).append(row["psnr_masked"] - second[key]["psnr_masked"])
    mean = np.mean([np.mean(each) for each in differences.values()])
    assert f"{mean:+.2f}" in lines[3].replace("−", "-")


def test_scored_methods_stand_in_the_comparison_and_on_the_page(here, capsys):
    run(capsys, folder="grey128")
    assert [each.name for each in gather(".")] == ["this run", "grey-128"]
    with pytest.raises(SystemExit) as stop:
        compare.main([])
    out, _ = capsys.readouterr()
    assert stop.value.code == 0 and "| grey-128 |" in out
    results = gather(".")
    verdicts = judge(results, None, None, {}, 0.95)
    (_, row) = leaderboard(Experiments(results=results, verdicts=verdicts, confidence=0.95))
    assert row["backbone"] == "grey 128" and "CC0" in row["detail"] and row["refused"] == []


def test_a_method_of_another_protocol_is_not_compared_with_this_run(here, capsys):
    path = Path("reports/experiment.json")
    about = json.loads(path.read_text())
    about["protocol"]["eval.masks"] = "splatt3r"
    path.write_text(json.dumps(about))
    code, _, said = run(capsys, folder="grey128")
    assert code == 1 and "Refused: grey-128 was measured in another way: eval.masks strict instead of splatt3r." in said


def drop_target(folder: Path) -> None:
    next(folder.glob("aligned/*/*.png")).unlink()


def other_scene(folder: Path) -> None:
    first = next(folder.glob("aligned/*"))
    shutil.copytree(first, first.with_name("elsewhere"))


def smaller(folder: Path) -> None:
    Image.new("RGB", (20, 16)).save(next(folder.glob("aligned/*/*.png")))


def transparent(folder: Path) -> None:
    Image.new("RGBA", (40, 32)).save(next(folder.glob("aligned/*/*.png")))


def cut_off(folder: Path) -> None:
    path = next(folder.glob("aligned/*/*.png"))
    path.write_bytes(path.read_bytes()[:60])


def declared(**changes) -> object:
    def work(folder: Path) -> None:
        path = folder / "method.json"
        about = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in about.items() if value is not None}))

    return work


def as_tensors(factor: float = 1.0, keep: bool = False, whole: bool = True):
    """The first episode's pictures as a safetensors file, in place of the PNGs or beside them."""

    def work(folder: Path) -> None:
        own = sorted((folder.parent / "own/aligned").glob("*.safetensors"))[0]
        tensors = {name: tensor * factor for name, tensor in load_file(own).items()}
        if not whole:
            tensors = {name: tensor[:, :16] for name, tensor in tensors.items()}
        save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "aligned" / own.name)
        if not keep:
            shutil.rmtree(folder / "aligned" / own.stem)

    return work


FAULTS = [
    (lambda folder: shutil.rmtree(folder), "There is no folder grey128"),
    (lambda folder: (folder / "method.json").unlink(), "method.json is missing; fill in"),
    (lambda folder: (folder / "method.json").write_text("{"), "is not JSON"),
    (declared(hardware=None), "must hold exactly layout, protocol, method, licence, hardware; found"),
    (declared(licence="  "), "leaves licence empty"),
    (declared(layout=9), "is of layout 9, this code reads 1"),
    (declared(protocol="0" * 16), "was rendered for protocol 0000000000000000"),
    (declared(method="???"), "has no letter or digit"),
    (drop_target, "lacks 1 of 24 targets: "),
    (other_scene, "holds 2 pictures that are no target of this protocol: elsewhere/001, elsewhere/002"),
    (lambda folder: (folder / "aligned/notes.txt").write_text("x"), "has no place in layout 1"),
    (smaller, "is 20 x 16 pixels; wanted 40 x 32"),
    (transparent, "is a picture of mode RGBA"),
    (cut_off, "cannot be read as PNG"),
    (as_tensors(keep=True), "holds 2 targets twice"),
    (as_tensors(factor=255), "wanted sRGB in [0, 1]"),
    (as_tensors(factor=float("nan")), "wanted sRGB in [0, 1]"),
    (as_tensors(whole=False), "wanted floating point (3, 32, 40)"),
    (lambda folder: (folder / "aligned/x.safetensors").write_text("x"), "cannot be read as safetensors"),
    (lambda folder: (folder / "raw").mkdir(), "raw lacks 24 of 24 targets"),
]


@pytest.mark.parametrize(("spoil", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_a_folder_that_is_not_what_it_should_be_is_named_and_nothing_is_written(spoil, words, here, capsys):
    spoil(here / "grey128")
    code, out, err = run(capsys, folder="grey128")
    assert str(code).startswith("error: ") and words in str(code) and out == ""
    assert str(code).count("\n") == 0 and not Path("reports/scored").exists()


def test_safetensors_and_pngs_may_stand_side_by_side(here, capsys):
    as_tensors()(here / "grey128")
    assert run(capsys, folder="grey128")[0] == 0


def test_an_export_replaces_nothing(here, capsys):
    before = (here / "told/protocol.json").read_bytes()
    code, _, _ = run(capsys, protocol_to="told")
    assert "told is there already" in str(code) and (here / "told/protocol.json").read_bytes() == before


def test_another_method_s_scores_are_not_replaced(here, capsys):
    run(capsys, folder="grey128")
    declared(method="Grey (128)")(here / "grey128")
    code, _, _ = run(capsys, folder="grey128")
    assert "holds the scores of 'grey 128'; name the method otherwise" in str(code)
