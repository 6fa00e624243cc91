import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from src import evaluate
from src.config import load_config
from src.evaluate import absences, all_scores, cloud_rows, target_rows
from src.experiments.publish import detailed_metrics
from src.metrics.perceptual import Kept, Perceptual
from src.renders.episode_file import Rendered, write_episode
from src.results.tables import read_rows, select_rows
from src.scenes.scene import Scene
from tests.helpers.fabricated import PLANE, change, write_results
from tests.helpers.repository import ROOT

NO_LPIPS = Perceptual({})


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(results) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(results)
        evaluate.main(load_config(["eval.lpips=none"], root=ROOT))
    return results


def test_every_target_is_scored_by_every_method(evaluated):
    rows = read_rows((evaluated / "data/eval/records.csv").read_text())
    assert len(rows) == 6 * 2 * 2 * 4 * 2  # scenes, bins, targets, methods, alignments
    assert len({(row["episode"], row["target"], row["method"], row["alignment"]) for row in rows}) == len(rows)
    assert "lpips" not in rows[0]
    for name in ("depth_abs_rel", "depth_rmse", "depth_delta1"):
        assert all((row[name] is not None) == (row["method"] in ("render", "points_splat")) for row in rows)


def test_scores_agree_with_the_noise_that_was_added(evaluated):
    """Noise of deviation 0.1 (clamping seldom matters): -20 log10(0.1) = 20 dB; 0.15 unaligned."""
    rows = read_rows((evaluated / "data/eval/records.csv").read_text())
    for alignment, expected in (("aligned", 20.0), ("raw", 20 - 20 * np.log10(1.5))):
        scores = [row["psnr_masked"] for row in select_rows(rows, method="points_splat", alignment=alignment)]
        assert np.mean(scores) == pytest.approx(expected, abs=0.4)
    depths = [row["depth_abs_rel"] for row in select_rows(rows, method="render", alignment="raw")]
    assert np.mean(depths) == pytest.approx(1.5**0.5 - 1, abs=0.01)
    for alignment, rmse, found in (("aligned", 0, 1), ("raw", (1.5**0.5 - 1) * PLANE, 1)):  # 1.22 times too far
        rows_of = select_rows(rows, method="render", alignment=alignment)
        assert np.mean([row["depth_rmse"] for row in rows_of]) == pytest.approx(rmse, abs=0.01)
        assert {row["depth_delta1"] for row in rows_of} == {found}
    assert {row["mask_share"] for row in rows} == {35 / 40}


def test_a_copied_photograph_scores_the_same_however_aligned(evaluated):
    rows = read_rows((evaluated / "data/eval/records.csv").read_text())
    raw, aligned = (select_rows(rows, method="copy_nearest", alignment=alignment) for alignment in ("raw", "aligned"))
    assert [row["psnr"] for row in raw] == [row["psnr"] for row in aligned]


def test_clouds_are_scored_in_the_first_context_frame(evaluated):
    """The wall of the first camera, seen by both: true points built here by hand."""
    rendered = Rendered.read(evaluated / "data/renders/rooms__1__close.safetensors")
    scene = Scene.open(evaluated / "data/scenes/scenes/rooms__1.safetensors")
    contexts = [scene.view(name, (40, 32)) for name in rendered.about["contexts"]]
    truth = []
    for view in contexts:
        shift = (view.c2w - contexts[0].c2w)[:2, 3].numpy()
        for y in range(2, 32):  # the first two rows have no depth
            truth += [
                ((x + 0.5 - 20) / 48 * PLANE + shift[0], (y + 0.5 - 16) / 48 * PLANE + shift[1], PLANE)
                for x in range(40)
            ]
    valid = np.tile(np.repeat(np.arange(32) >= 2, 40), 2)
    predicted = rendered.tensors["means"].double().numpy()[valid]
    for row, factor in zip(cloud_rows(rendered, contexts, [0.515], True), (1.0, 1.25)):
        there, back = cKDTree(truth).query(predicted / factor)[0], cKDTree(predicted / factor).query(truth)[0]
        assert row["chamfer"] == pytest.approx((there.mean() + back.mean()) / 2, rel=1e-4)
        precision, recall = (there < 0.515).mean(), (back < 0.515).mean()
        assert row["fscore_0.515"] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-4)
        assert row["scale"] == 1.25 and row["scale_error"] == pytest.approx(0.25)


def test_the_summary_holds_means_with_spread_and_says_what_is_absent(evaluated):
    summary = json.loads((evaluated / "data/eval/summary.json").read_text())
    rows = read_rows((evaluated / "data/eval/records.csv").read_text())
    scores = [row["psnr_masked"] for row in select_rows(rows, method="render", alignment="aligned")]
    assert {"depth_abs_rel", "depth_rmse", "depth_delta1"} < set(summary["methods"]["render"]["raw"])
    assert {"scale", "scale_error", "chamfer", "fscore_0.02"} < set(summary["cloud"]["render"]["raw"])
    assert all(set(entry) == {"mean", "std", "n"} for entry in summary["cloud"]["render"]["aligned"].values())
    entry = summary["methods"]["render"]["aligned"]["psnr_masked"]
    assert entry["n"] == 24 and entry["mean"] == pytest.approx(np.mean(scores), abs=1e-5)
    assert entry["std"] == pytest.approx(np.std(scores, ddof=1), abs=1e-5)
    assert set(summary["bins"]) == {"close", "wide"} and set(summary["categories"]) == {"objects", "rooms"}
    assert summary["counts"] == {"episodes": 12, "scenes": 6, "targets": 24} and summary["resolution"] == [40, 32]
    cloud = summary["cloud"]["render"]
    assert cloud["aligned"]["chamfer"]["mean"] < cloud["raw"]["chamfer"]["mean"]
    points = summary["cloud"]["points_splat"]["aligned"]["chamfer"]
    assert points["n"] == cloud["aligned"]["chamfer"]["n"] and points["mean"] > 2 * cloud["aligned"]["chamfer"]["mean"]
    known = summary["methods"]["points_splat"]["aligned"]["depth_abs_rel"]
    assert known == summary["methods"]["render"]["aligned"]["depth_abs_rel"]
    assert set(summary["absent"]) == {"LPIPS", "Overlap bin medium", "Overlap bin very_wide"}


def test_a_second_run_writes_the_same_bytes(evaluated, monkeypatch):
    files = {path: path.read_bytes() for path in (evaluated / "data/eval").iterdir()}
    monkeypatch.chdir(evaluated)
    evaluate.main(load_config(["threads=1", "eval.lpips=none"], root=ROOT))
    assert {path: path.read_bytes() for path in (evaluated / "data/eval").iterdir()} == files
    assert sorted(path.name for path in files) == ["cloud.csv", "records.csv", "summary.json"]


def test_an_empty_mask_leaves_masked_scores_absent(results):
    rendered = Rendered.read(results / "data/renders/objects__0__wide.safetensors")
    rendered.tensors["mask"].zero_()
    scene = Scene.open(results / "data/scenes/scenes/objects__0.safetensors")
    views = [scene.view(name, (40, 32)) for name in rendered.about["targets"]]
    rows = target_rows(rendered, views, NO_LPIPS, True)
    assert all(row["psnr_masked"] is row["ssim_splatt3r"] is row["depth_delta1"] is None for row in rows)
    assert all(row["psnr"] > 0 and row["mask_share"] == 0 for row in rows)
    assert "Masked scores of 2 targets" in absences(rows, [], NO_LPIPS, False, {})


def test_scenes_without_metres_have_no_scale_error_and_without_depth_no_cloud(results):
    rendered = Rendered.read(results / "data/renders/objects__0__wide.safetensors")
    scene = Scene.open(results / "data/scenes/scenes/objects__0.safetensors")
    contexts = [scene.view(name, (40, 32)) for name in rendered.about["contexts"]]
    metric, other = (cloud_rows(rendered, contexts, [0.1], in_metres) for in_metres in (True, False))
    for method, start in (("render", ""), ("points_splat", "points_")):
        (raw, aligned), (row,) = (select_rows(rows, method=method) for rows in (metric, other))
        assert row["alignment"] == "aligned" and row["scale_error"] is None and raw["scale_error"] is not None
        scale = rendered.tensors[f"{start}scale"].item()
        assert row["chamfer"] == pytest.approx(scale * aligned["chamfer"], rel=1e-5)  # metres as predicted
    for view in contexts:
        view.depth.zero_()
    assert cloud_rows(rendered, contexts, [0.1], True) == []


def test_depths_of_scenes_without_a_metre_are_compared_at_the_predicted_size(results):
    rendered = Rendered.read(results / "data/renders/objects__0__wide.safetensors")
    rendered.tensors["depth_aligned"] = rendered.tensors["depth_aligned"] + 0.5
    scene, scale = Scene.open(results / "data/scenes/scenes/objects__0.safetensors"), rendered.tensors["scale"].item()
    views = [scene.view(name, (40, 32)) for name in rendered.about["targets"]]
    known, unknown = (target_rows(rendered, views, NO_LPIPS, metric) for metric in (True, False))
    for here, there in zip(select_rows(known, method="render"), select_rows(unknown, method="render"), strict=True):
        if here["alignment"] == "raw":
            assert there["depth_abs_rel"] is there["depth_rmse"] is there["depth_delta1"] is None
        else:
            assert there["depth_rmse"] == pytest.approx(scale * here["depth_rmse"]) and scale != 1
            assert there["depth_abs_rel"] == pytest.approx(here["depth_abs_rel"]) and here["depth_rmse"] > 0.1


def test_targets_whose_contexts_have_no_depth_are_said_to_have_no_mask(evaluated):
    rows = read_rows((evaluated / "data/eval/records.csv").read_text())
    clouds = read_rows((evaluated / "data/eval/cloud.csv").read_text())
    few = [row for row in clouds if row["episode"] != rows[0]["episode"]]
    assert "What the contexts of 2 targets have seen" in absences(rows, few, NO_LPIPS, True, {})
    assert not any(key.startswith("What the contexts") for key in absences(rows, clouds, NO_LPIPS, True, {}))


class Distance(torch.nn.Module):
    """A stand-in for LPIPS: the absolute difference. It counts the images that it was given."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def features(self, images):
        self.seen += len(images)
        return [images]

    def distances(self, photo, render, size):
        pixels = (photo[0] - render[0]).abs().mean(1, keepdim=True)
        return pixels.mean((1, 2, 3)), pixels

    def compare(self, photo, render):
        return self.distances([photo], [render], photo.shape[-2:])


def rows_of(results: Path, episode: str, perceptual: Perceptual) -> list[dict]:
    rendered = Rendered.read(results / f"data/renders/{episode}.safetensors")
    scene = Scene.open(results / f"data/scenes/scenes/{rendered.about['scene']}.safetensors")
    views = [scene.view(name, (40, 32)) for name in rendered.about["targets"]]
    return target_rows(rendered, views, perceptual, True)


def test_a_large_trunk_scores_aligned_renders_and_a_small_one_every_aligned_picture(results):
    networks = {"vgg": Distance(), "alex": Distance()}
    perceptual = Perceptual(networks)
    rows = rows_of(results, "objects__0__wide", perceptual)
    rendered = Rendered.read(results / "data/renders/objects__0__wide.safetensors")
    scene = Scene.open(results / "data/scenes/scenes/objects__0.safetensors")
    for row in rows:
        headline = (row["method"], row["alignment"]) == ("render", "aligned")
        assert (row["lpips"] is not None) == headline == (row["lpips_masked"] is not None)
        number = rendered.about["targets"].index(row["target"])
        picture = rendered.picture(row["method"], row["alignment"])[number].clamp(0, 1)
        apart = (picture - scene.view(row["target"], (40, 32)).image).abs().mean(0)
        mask = rendered.tensors["mask"][number].bool()
        if row["alignment"] == "raw":
            assert row["lpips_alex"] is row["lpips_alex_masked"] is None
            continue
        assert row["lpips_alex"] == pytest.approx(apart.mean().item(), abs=1e-5)
        assert row["lpips_alex_masked"] == pytest.approx(apart[mask].mean().item(), abs=1e-5)
        assert not headline or row["lpips"] == pytest.approx(row["lpips_alex"], abs=1e-6)
        assert not any("lpips_splatt3r" in name for name in row)
    targets = len(rendered.about["targets"])
    assert networks["vgg"].seen == targets * (1 + 1) and networks["alex"].seen == targets * (1 + 4)
    rows_of(results, "objects__0__wide", perceptual)  # the photographs' features are kept
    assert networks["vgg"].seen == targets * (1 + 2) and networks["alex"].seen == targets * (1 + 8)
    assert set(perceptual.absences()) == {
        "LPIPS of pictures as predicted, and by Splatt3R's definition",
        "LPIPS (vgg) of baselines",
    }


def test_all_pictures_and_splatt3rs_own_scores_where_they_are_asked_for(results):
    network = Distance()
    perceptual = Perceptual({"vgg": network}, "all")
    rows = rows_of(results, "objects__0__wide", perceptual)
    # 7 pictures, as a copied photograph has no alignment; Splatt3R's black out both images of each pair again
    assert network.seen == 2 * (1 + 7)
    assert all(row["lpips"] is not None and row["lpips_splatt3r_masked"] is not None for row in rows)
    assert perceptual.absences() == {}


def test_splatt3rs_own_scores_black_out_what_is_not_masked():
    photo, mask = torch.full((3, 16, 16), 0.5), torch.zeros(16, 16, dtype=torch.bool)
    mask[:8] = True
    scores = all_scores(photo + 0.2 * mask + 0.1 * ~mask, photo, mask, Distance())
    assert scores["lpips_splatt3r"] == pytest.approx(0.1) and scores["lpips_splatt3r_masked"] == pytest.approx(0.2)


def test_features_are_kept_for_the_last_photographs_only():
    asked, kept = [], Kept(2)

    def value(key):
        return kept.get(key, lambda: asked.append(key) or [torch.ones(1)])

    for key in (1, 2, 1, 3, 1, 2):
        value(key)
    assert asked == [1, 2, 3, 2] and len(kept.values) == 2


def test_missing_renders_and_a_missing_lpips_trunk_stop_with_a_sentence(results, tmp_path, monkeypatch):
    monkeypatch.chdir(results)
    monkeypatch.setattr(evaluate, "RENDERS", tmp_path)
    with pytest.raises(FileNotFoundError, match="run dvc repro render"):
        evaluate.main(load_config(["eval.lpips=none"], root=ROOT))
    with pytest.raises(FileNotFoundError, match="eval.lpips"):
        evaluate.main(load_config(["eval.lpips=vgg"], root=ROOT))


def test_pairs_without_a_believable_scale_are_dropped_and_named(results, tmp_path, monkeypatch):
    shutil.copytree(results, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    files = sorted(Path("data/renders").glob("*.safetensors"))
    for file in files[:1]:
        change_scale(file, 2000.0)
    evaluate.main(load_config(["threads=1", "eval.lpips=none"], root=ROOT))
    summary = json.loads(Path("data/eval/summary.json").read_text())
    assert f"All scores of {files[0].stem}" in summary["absent"]
    assert summary["counts"]["episodes"] == len(files) - 1
    for file in files:
        change_scale(file, 0.0)
    with pytest.raises(ValueError, match="scale of all 12 test pairs lies outside"):
        evaluate.main(load_config(["threads=1", "eval.lpips=none"], root=ROOT))


def test_scores_that_are_not_finite_are_absent_counted_and_explained(results, tmp_path, monkeypatch):
    shutil.copytree(results, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    broken = torch.full((2, 3, 32, 40), torch.nan, dtype=torch.float16)
    change(
        sorted(Path("data/renders").glob("*.safetensors"))[0],
        render_aligned=broken,
        means=torch.full((2560, 3), torch.inf, dtype=torch.float16),
    )
    evaluate.main(load_config(["threads=1", "eval.lpips=none"], root=ROOT))
    summary = json.loads(Path("data/eval/summary.json").read_text())
    assert {"2 scores of psnr_masked", "2 scores of ssim", "2 scores of chamfer"} <= summary["absent"].keys()
    rows = read_rows(Path("data/eval/records.csv").read_text())
    lost = [row for row in rows if row["psnr_masked"] is None]
    assert len(lost) == 2 and {(row["method"], row["alignment"]) for row in lost} == {("render", "aligned")}
    scored = summary["methods"]["render"]["aligned"]["psnr_masked"]
    kept = [row["psnr_masked"] for row in select_rows(rows, method="render", alignment="aligned") if row["psnr_masked"]]
    assert scored["n"] == 22 and scored["mean"] == pytest.approx(np.mean(kept), abs=1e-6)


def change_scale(file: Path, scale: float) -> None:
    change(file, scale=torch.tensor([scale], dtype=torch.float64))


def test_scores_of_an_evaluation_index_include_what_it_repeats(results, tmp_path, monkeypatch):
    """Against scikit-image on the pictures in the files, a mean over all of them; a stand-in for LPIPS against numpy."""
    shutil.copytree(results / "data", tmp_path / "data")
    wanted = {"psnr": [], "ssim": [], "lpips": []}
    for number, path in enumerate(sorted((tmp_path / "data/renders").glob("*.safetensors"))):
        rendered = Rendered.read(path)
        about, tensors = rendered.about | {"bin": "index"}, dict(rendered.tensors)
        if number == 0:
            about["repeated"] = about["contexts"][:1]
            for name, tensor in tensors.items():
                if name.removeprefix("points_") not in ("means", "scale"):
                    tensors[name] = torch.cat([tensor, tensor[:1]])
        write_episode(tmp_path / "data/renders", about, tensors)
        scene = Scene.open(tmp_path / f"data/scenes/scenes/{about['scene']}.safetensors")
        for view, name in enumerate(about["targets"] + about.get("repeated", [])):
            truth = scene.view(name, rendered.resolution).image.numpy()
            shown = tensors["render_aligned"][view].float().clamp(0, 1).numpy()
            wanted["psnr"].append(peak_signal_noise_ratio(truth, shown, data_range=1))
            window = {"win_size": 11, "gaussian_weights": True, "channel_axis": 0, "data_range": 1}
            wanted["ssim"].append(structural_similarity(truth, shown, **window))
            wanted["lpips"].append(np.abs(truth - shown).mean())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Perceptual, "load", lambda *_: Perceptual({"alex": Distance()}))
    evaluate.main(load_config(["eval.lpips=alex"], root=ROOT))
    summary = json.loads((tmp_path / "data/eval/summary.json").read_text())
    found = summary["index"]["aligned"]
    for name, values in wanted.items():
        assert found[f"{name}_index"] == pytest.approx(np.mean(values), abs=1e-4), name
    assert (found["targets_index"], found["repeated_index"]) == (25, 1) and summary["counts"]["targets"] == 24
    told = detailed_metrics(summary | {"counts": summary["counts"] | {"images": 24}}, 0, {"sites": {}})
    assert told["psnr_index"] == pytest.approx(found["psnr_index"], abs=1e-6) and told["targets_index"] == 25
    rows = read_rows((tmp_path / "data/eval/records.csv").read_text())
    assert len({(row["episode"], row["target"]) for row in rows}) == 24
