"""The pipeline up to the scores on CO3D in miniature: downloaded, prepared, trained on, evaluated."""

import json
from dataclasses import replace

from src.experiments.archive import read_kept
from src.experiments.generalisation import generalisation
from tests.helpers.co3d_miniature import published, write_dataset
from tests.helpers.repository import SHORT_RUN, fresh_repository, run
from tests.helpers.serving import serving

MINIATURE = [
    "data.dataset=co3d",
    "datasets.co3d.resolution=[48,48]",
    "datasets.co3d.episodes.per_bin=1",
    "datasets.co3d.episodes.num_targets=2",
    *SHORT_RUN,
]
PROCEDURAL = [
    "data.dataset=procedural",
    "datasets.procedural.source.families=[objects]",
    *(f"datasets.procedural.source.scenes.{split}=1" for split in ("train", "val", "test")),
    "datasets.procedural.source.views=6",
    "datasets.procedural.source.samples=1",
    "datasets.procedural.resolution=[48,48]",
    "datasets.procedural.episodes.per_bin=1",
]


def test_co3d_is_downloaded_prepared_trained_on_and_evaluated(tmp_path):
    folder, tree = fresh_repository(tmp_path / "backsplat"), write_dataset(tmp_path / "tree")
    with serving() as server:
        server.files = {
            name: data.replace(b"SERVER", server.url.encode()) if name.endswith(".json") else data
            for name, data in published(tree).items()
        }
        values = [*MINIATURE, f"datasets.co3d.source.upstream={server.url}/upstream"]
        changes = [word for value in values for word in ("-S", value)]
        result = run(folder, "dvc", "exp", "run", "-q", "evaluate", *changes)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    report, summary = (
        json.loads((folder / name).read_text()) for name in ("data/scenes/report.json", "data/eval/summary.json")
    )
    assert report["dataset"] == "co3d" and report["listed"] == report["kept"] == 5
    assert summary["units"] == "scene" and summary["counts"]["scenes"] == 2
    for alignment in ("raw", "aligned"):
        assert summary["methods"]["render"][alignment]["psnr_masked"]["n"] > 0
    assert not summary["cloud"]["render"]["raw"]
    assert summary["cloud"]["render"]["aligned"]["chamfer"]["n"] == summary["counts"]["episodes"]
    assert "not in metres" in " ".join(summary["absent"].values())
    assert run(folder, "dvc", "status", "-q", "evaluate").returncode == 0
    check_scored_elsewhere(folder)


def check_scored_elsewhere(folder):
    """The model trained on CO3D, scored on procedural scenes by one command; what it was trained with stays."""
    held = run(folder, "python", "-m", "src.transfer", "other", "data.dataset=procedural", "opt.steps=5")
    assert held.returncode == 1 and "opt would differ from what data/model was trained with" in held.stderr
    model = (folder / "data/model/record.json").read_bytes()
    scored = run(folder, "python", "-m", "src.transfer", "co3d-on-procedural", *PROCEDURAL)
    assert scored.returncode == 0, scored.stdout[-3000:] + scored.stderr[-3000:]
    kept = read_kept(folder / "reports/experiments/co3d-on-procedural")
    protocol = kept.about["protocol"]
    assert (protocol["training"]["dataset"], protocol["dataset"]) == ("co3d", "procedural")
    assert {row["category"] for row in kept.rows} == {"objects"} and kept.scores()
    assert (folder / "data/model/record.json").read_bytes() == model and not (
        folder / "scratch/transfer/other"
    ).exists()
    (matrix,) = generalisation([kept, replace(kept, about=on_itself(kept.about))], 0.95).values()
    assert matrix["co3d"]["procedural objects"]["n"] == len(kept.scores())


def on_itself(about: dict) -> dict:
    """As if the same model had been scored where it was trained."""
    return about | {"protocol": about["protocol"] | {"dataset": "co3d"}}
