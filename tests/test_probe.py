"""The stage on small procedural scenes, with the bundled network."""

from pathlib import Path

import pytest

from src import probe
from src.probes.results import read_probe
from src.splatt3r.readout import read_solution
from tests.helpers.frozen import before_the_backbone, extract_backbone, settings
from tests.helpers.miniatures import computing_as_before


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return before_the_backbone(tmp_path_factory.mktemp("probed"))


def probed(folder: Path, monkeypatch, *overrides: str) -> tuple[dict, list[dict]]:
    extract_backbone(folder, *overrides)
    monkeypatch.chdir(folder)
    with computing_as_before():
        probe.main(settings(*overrides))
    return read_probe("data/probe")


def values(rows: list[dict], name: str, inputs: str) -> list[float]:
    return [row["value"] for row in rows if (row["probe"], row["inputs"]) == (name, inputs)]


def test_the_positive_control_is_read_out_whole(folder, monkeypatch):
    summary, _ = probed(folder, monkeypatch, "model.backbone=truth")
    for target in ("log_depth", "normals"):
        found = summary["readouts"][target]
        assert found["features"]["r2"] > 0.99 > found["position"]["r2"], target
    assert read_solution("data/readout.safetensors", "both").keys() == {"mean", "inverse_sd", "weight", "bias"}


def test_constant_features_add_exactly_nothing(folder, monkeypatch):
    summary, rows = probed(folder, monkeypatch, "model.backbone=constant")
    for name in ("log_depth", "normals", "distance", "direction", "correction", "psnr_masked"):
        assert values(rows, name, "both") == values(rows, name, "tokens") != [], name
        assert summary["added"][name]["mean"] == 0
    assert "features" not in summary["correspondence"] and "they are the same everywhere" in str(summary["absent"])


def test_depth_stays_where_no_patch_was_predicted_near_its_place(folder, monkeypatch):
    monkeypatch.setattr("src.probes.pair.TORN", -1.0)
    summary, _ = probed(folder, monkeypatch, "model.backbone=rgb")
    assert "What corrects the geometry's depth" in summary["absent"] and "correction" not in summary["readouts"]
    assert (
        read_solution("data/readout.safetensors", "both") == read_solution("data/readout.safetensors", "tokens") == {}
    )


def test_principal_components_are_read_beside_the_features(folder, monkeypatch):
    """All of them know what true depth and normals know; one knows less."""
    for count in (10_000, 1):
        summary, rows = probed(folder, monkeypatch, "model.backbone=truth", f"probe.pca={count}")
        for target in ("log_depth", "normals"):
            found = summary["readouts"][target]
            assert (found["features_pca"]["r2"] > 0.99) == (count > 1) and found["features"]["r2"] > 0.99
            assert values(rows, target, "both_pca") and summary["added"][f"{target}_pca"]["p"] is None
        assert "both_pca" not in summary["readouts"]["correction"]
    summary, _ = probed(folder, monkeypatch, "model.backbone=none", "probe.pca=4")
    assert "features_pca" not in summary["readouts"]["log_depth"]


def test_bytes_do_not_depend_on_threads(folder, monkeypatch):
    def written(threads: int) -> list[bytes]:
        probed(folder, monkeypatch, "model.backbone=rgb", f"threads={threads}")
        return [path.read_bytes() for path in (*sorted(Path("data/probe").iterdir()), Path("data/readout.safetensors"))]

    assert written(1) == written(2)


def test_without_a_backbone_the_geometry_is_probed_alone(folder, monkeypatch):
    summary, rows = probed(folder, monkeypatch, "model.backbone=none")
    assert summary["readouts"]["log_depth"].keys() == {"position", "tokens"} and summary["added"] == {}
    assert (
        read_solution("data/readout.safetensors", "both") == {} != read_solution("data/readout.safetensors", "tokens")
    )
    assert {row["inputs"] for row in rows} == {"position", "tokens", "swept"}


def test_truth_with_noise_knows_less_the_more_there_is(folder, monkeypatch):
    found = []
    for noise in ("", ":0.1", ":0.4"):
        summary, _ = probed(folder, monkeypatch, f"model.backbone=truth{noise}")
        found.append(summary["readouts"]["log_depth"]["features"]["r2"])
    assert found == sorted(found, reverse=True) and found[0] - found[-1] > 0.005


def test_without_depth_matches_are_held_against_epipolar_lines_and_nothing_else_is_told(folder, monkeypatch):
    batch = probe.ProbedPairs.batch

    def without_depth(pairs: probe.ProbedPairs, number: int):
        found = batch(pairs, number)
        found.contexts.depth.zero_()
        return found

    monkeypatch.setattr(probe.ProbedPairs, "batch", without_depth)
    summary, rows = probed(folder, monkeypatch, "model.backbone=rgb")
    assert summary["readouts"] == summary["correspondence"] == {}
    assert summary["epipolar"].keys() == {"tokens", "features"} and summary["epipolar"]["tokens"]["all"]["cells"] > 0
    assert summary["added"].keys() == {"line_1", "line_2"} and {row["probe"] for row in rows} == {"line_1", "line_2"}
    assert summary["absent"]["Readouts"] and "epipolar lines" in str(summary["absent"])
    assert read_solution("data/readout.safetensors", "tokens") == {}
