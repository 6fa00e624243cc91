"""The pipeline up to the scores on what people bring: captures of COLMAP, and chunks with an evaluation index."""

import json

import pytest

from tests.helpers.captures import capture
from tests.helpers.chunks import write_root
from tests.helpers.repository import SHORT_RUN, fresh_repository, run


def colmap(root):
    """Three captures, told apart by their colours; one of each split. Overlaps are told by their points."""
    for number, colours in enumerate([(0, 1, 2), (1, 2, 0), (2, 0, 1)]):
        capture(root / f"room{number}", number != 1, colours=colours)
    return ["datasets.colmap.source.train=[room0]", "datasets.colmap.source.val=[room1]"]


def chunks(root):
    """Three scenes for training, two for testing; an evaluation index says which of their views are scored."""
    write_root(root)
    entries = {"dd": {"context": [2, 9], "target": [4, 6]}, "ee": {"context": [0, 5], "target": [3]}}
    (root / "index.json").write_text(json.dumps(entries))
    return [
        "datasets.chunks.source.image_size=[160,120]",
        f"datasets.chunks.source.evaluation_index={root}/index.json",
        "datasets.chunks.episodes.view_selection=index",
        "datasets.chunks.episodes.temporal_gap_min=3",
        "datasets.chunks.episodes.temporal_gap_max=5",
    ]


@pytest.mark.parametrize("brought", [colmap, chunks])
def test_what_people_bring_is_trained_on_and_scored(brought, tmp_path):
    folder, name = fresh_repository(tmp_path / "backsplat"), brought.__name__
    own = [
        f"data.dataset={name}",
        f"datasets.{name}.source.root={tmp_path}/root",
        f"datasets.{name}.resolution=[64,48]",
        f"datasets.{name}.episodes.num_targets=2",
        *brought(tmp_path / "root"),
    ]
    changes = [word for value in [*own, *SHORT_RUN] for word in ("-S", value)]
    result = run(folder, "dvc", "exp", "run", "-q", "evaluate", *changes)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    summary, probes = (json.loads((folder / f"data/{file}/summary.json").read_text()) for file in ("eval", "probe"))
    assert summary["units"] == "scene" and summary["counts"]["scenes"] == {"colmap": 1, "chunks": 2}[name]
    assert summary["methods"]["render"]["aligned"]["psnr_masked"]["n"] == summary["counts"]["targets"] > 0
    assert "Chamfer distance and F-score" in summary["absent"] and not summary["cloud"]["render"]["aligned"]
    assert probes["epipolar"]["features"]["all"]["cells"] > 0 and "Readouts" in probes["absent"]
    if name == "chunks":
        assert summary["index"]["aligned"]["targets_index"] == 3
    assert run(folder, "dvc", "status", "-q", "evaluate").returncode == 0
