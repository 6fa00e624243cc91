import csv
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src import evaluate, report
from src.config import load_config
from src.experiments.publish import experiment_record
from src.experiments.result import protocol_differences, read_folder
from src.reproducible.files import read_json, write_json
from src.results.tables import METHODS, read_rows, select_rows
from tests.helpers.fabricated import change, write_results
from tests.helpers.reported import PINNED, ROOT, run

DECLARED = ("metrics.json", "details.json", "experiment.json", "records.csv", "plots", "images")


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of everything that must repeat."""
    files = [path for name in DECLARED for path in (folder / "reports" / name, *(folder / "reports" / name).rglob("*"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """A committed MASt3R-only baseline, experiments with another fusion and two seeds, with constant features, and with
    longer training, and this run."""
    folder = tmp_path_factory.mktemp("reported")

    def git(*words):
        done = subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("config", "user.email", "a@example.org")
    git("config", "user.name", "A")
    (folder / ".gitignore").write_text("data/\n")
    run(folder, "model.backbone=none", backbone="none", weights="none")
    git("add", "-A")
    git("commit", "-qm", "baseline")
    head = git("rev-parse", "HEAD")
    for name, overrides, results in (
        ("add", ["model.fusion_mode=add"], {"gain": 0.3}),
        ("add-1", ["model.fusion_mode=add", "seed=1"], {"gain": 0.5, "seed": 1}),
        ("constant", ["model.backbone=constant"], {"gain": 0.02, "backbone": "constant"}),
        ("long", ["opt.steps=900"], {"gain": 0.4}),
    ):
        run(folder, *overrides, **results)
        git("add", "-A")
        git("commit", "-qm", name)
        git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", "HEAD")
        git("reset", "-q", "--hard", head)
    run(folder, gain=0.001)
    return folder


@pytest.fixture(scope="module")
def html(reported) -> str:
    return (reported / "reports/summary/index.html").read_text("utf8")


def test_headline_numbers_agree_with_the_records(reported):
    metrics, found = (json.loads((reported / f"reports/{name}.json").read_text()) for name in ("metrics", "details"))
    rows = read_rows((reported / "data/eval/records.csv").read_text())

    def mean(metric, **wanted):
        return np.mean([row[metric] for row in rows if all(row[key] == word for key, word in wanted.items())])

    for metric in ("psnr_masked", "psnr", "ssim", "ssim_masked", "depth_abs_rel"):
        assert metrics[metric] == pytest.approx(mean(metric, method="render", alignment="aligned"), abs=2e-6)
    assert found["psnr_masked_raw"] == pytest.approx(mean("psnr_masked", method="render", alignment="raw"), abs=2e-6)
    raw = [row for row in rows if (row["method"], row["alignment"]) == ("render", "raw")]
    errors = (
        np.array([10 ** (-row["psnr_splatt3r_masked"] / 10) for row in raw]).reshape(2, 12).mean(1)
    )  # masks are alike
    assert found["psnr_splatt3r_masked"] == pytest.approx(-10 * np.log10(errors).mean(), abs=1e-5)
    for group, column in (("bins", "bin"), ("categories", "category")):
        for name, value in found[group].items():
            wanted = {column: name, "method": "render", "alignment": "aligned"}
            assert value == pytest.approx(mean("psnr_masked", **wanted), abs=2e-6)
    for name, value in found["baselines"].items():
        assert value == pytest.approx(mean("psnr_masked", method=name, alignment="aligned"), abs=2e-6)
    counts = [found[name] for name in ("targets", "images", "scenes", "trainable_parameters")]
    assert counts == [24, 12, 6, 123456]
    flat = [value for entry in found.values() for value in (entry.values() if isinstance(entry, dict) else [entry])]
    assert len(flat) >= 12 and all(math.isfinite(value) for value in [*flat, *metrics.values()])
    assert not metrics.keys() & found.keys() and "lpips" not in metrics


def test_one_target_has_no_standard_deviation():
    scores = {method: {"raw": {}, "aligned": {"psnr_masked": {"mean": 20.0, "n": 1}}} for method in METHODS}
    summary = {
        "methods": scores,
        "cloud": {"render": {"aligned": {}}, "points_splat": {"aligned": {}}},
        "bins": {},
        "categories": {},
        "counts": {"targets": 1, "images": 1, "scenes": 1},
    }
    assert report.headline_metrics(summary) == {"psnr_masked": 20}
    assert "psnr_masked_std" not in report.detailed_metrics(summary, 5, {"sites": {}})
    scores["render"]["aligned"]["psnr_masked"] |= {"std": 0.0, "n": 2}
    assert report.detailed_metrics(summary, 5, {"sites": {}})["psnr_masked_std"] == 0


def test_what_fusion_came_to_do_is_published(reported, html):
    """Of this run; the baseline that it is compared with has none."""
    fusion = {"parameters": 23456, "relative_change_4": 0.0625, "weight_4": 0.03125}
    assert json.loads((reported / "reports/details.json").read_text())["fusion"] == fusion
    experiment_record = json.loads((reported / "reports/experiment.json").read_text())
    assert experiment_record["fusion"] == {
        "parameters": 23456,
        "sites": {"4": {"relative_change": 0.0625, "weight": 0.03125}},
    }
    assert "fusion into token map 4" in html and "changes them by 6.25 % of their length; weight 0.0312" in html
    assert "23,456" in html
    baseline = subprocess.run(
        ["git", "-C", reported, "show", "HEAD:reports/details.json"], check=True, capture_output=True
    )
    assert "fusion" not in json.loads(baseline.stdout)


def test_plots_agree_with_the_records(reported):
    plots = reported / "reports/plots"
    rows = select_rows(read_rows((reported / "data/eval/records.csv").read_text()), alignment="aligned")
    for file, column in (("bins", "bin"), ("scenes", "scene"), ("families", "category")):
        with open(plots / f"{file}.csv") as text:
            table = list(csv.DictReader(text))
        assert [line[next(iter(line))] for line in table] == sorted({row[column] for row in rows})
        for line in table:
            for method in ("render", "points"):
                scores = [
                    row["psnr_masked"]
                    for row in rows
                    if row[column] == next(iter(line.values())) and row["method"] == method
                ]
                assert float(line[method]) == pytest.approx(np.mean(scores), abs=2e-6) and int(line["n"]) == len(scores)
            if file == "bins":
                assert float(line["render_low"]) < float(line["render"]) < float(line["render_high"])
    assert (plots / "train_loss.csv").read_text().splitlines()[:2] == [
        "step,loss,model",
        '0,0.09,"DINOv2 ViT-S/14 (random weights, untrained)"',
    ]
    assert {path.name for path in plots.glob("*_*.csv")} == {"train_loss.csv", "train_mse.csv", "val_psnr_masked.csv"}


def test_pictures_have_stable_names(reported):
    names = {
        f"{family}_{rule}.png" for family in ("objects", "rooms") for rule in ("first", "easiest", "median", "hardest")
    }
    images = {path.name: Image.open(path) for path in (reported / "reports/images").iterdir()}
    assert set(images) == names | {"real_pair.png"}
    assert len({images[name].size for name in names}) == 1


def test_the_one_real_pair_is_shown_and_published_and_called_no_benchmark(reported, html):
    """Fabricated numbers, each of which another word stands beside; what was not measured is said."""
    picture = (reported / "data/real_pair/pictures.png").read_bytes()
    assert (reported / "reports/images/real_pair.png").read_bytes() == picture
    assert json.loads((reported / "reports/details.json").read_text())["real_pair"] == {
        "point_error_geometry": 0.125,
        "point_error_model": 0.0625,
        "psnr_masked_left": 16.5,
        "psnr_masked_right": 16.5,
        "ssim_masked_left": 0.4375,
        "ssim_masked_right": 0.4375,
        "pck_1_tokens": 0.25,
    }
    card = words_of(html[html.index('<section id="real-pair">') :].partition("</section>")[0])
    assert "One real pair" in card and "a made-up pair" in card and "no benchmark: no interval" in card
    assert "this model 6.2 %" in card and "frozen geometry network, no cameras 12.5 %" in card
    assert "pixels alone not measured not measured" in card
    assert "0.250 0.500 0.750" in card
    assert "Matches of one real pair by the features they are the same everywhere" in words_of(html)


def test_published_records_are_of_the_model_alone(reported):
    rows = read_rows((reported / "reports/records.csv").read_text())
    assert {row["method"] for row in rows} == {"render"} and len(rows) == 48


def test_declared_files_repeat_byte_for_byte_and_know_no_other_revision(reported, tmp_path):
    shutil.copytree(reported / "data", tmp_path / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        report.main(load_config(PINNED, root=ROOT))
    assert contents(tmp_path) == contents(reported)


class Balance(HTMLParser):
    """Open elements, and every address the page would fetch."""

    VOID = {"meta", "link", "img", "input", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("src", "href", "xlink:href", "srcset", "action") if key in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.addresses += [value for key, value in attributes if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(html):
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert all(address.startswith(("data:", "#")) for address in parser.addresses)
    assert "default-src 'none'" in html and "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def words_of(html: str) -> str:
    """The page as a reader sees it."""
    text = re.sub(r"<(style|script|svg).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def test_the_page_has_a_row_per_experiment_and_says_why_one_is_not_compared(html):
    table = re.search(r'<table class="board">.*?</table>', html, re.DOTALL).group()
    assert re.findall(r'<th scope="row">([^<]*)</th>', table) == [
        "this run",
        "main",
        "add",
        "constant",
        "long",
        *["baseline"] * 3,
    ]
    assert "Not compared: opt.steps 900 instead of 300" in words_of(table)
    assert "reference" in words_of(table) and "add at head, feature_extraction, 2 seeds" in words_of(table)
    assert "Rows that name several seeds are means over them" in words_of(html)


def test_the_page_tells_the_verdict_and_what_was_not_measured(html):
    words = words_of(html)
    headline = re.search(r"<h1>(.*?)</h1>", html).group(1)
    assert headline.startswith("DINOv2 ViT-S/14 (random weights, untrained) is ") and "n = 24 in 6 scenes" in headline
    assert "this run is an untrained control" in words
    assert (
        "Against an adapter that is told nothing: DINOv2 ViT-S/14 (random weights, untrained) is not distinguishable "
        "from constant features: "
    ) in words
    assert "LPIPS eval.lpips is none" in words and "Overlap bin medium no test pair overlaps that much" in words
    assert "Speed and memory of this run there is no reports/benchmark.json" in words
    assert "not measured" in words and "scikit" not in words
    assert "nan" not in words.lower().split() and "None" not in words


def test_the_chamfer_distance_has_its_own_number_of_pairs(reported, html):
    clouds = read_rows((reported / "data/eval/cloud.csv").read_text())
    pairs = len(select_rows(clouds, method="render", alignment="aligned"))
    assert pairs == 12 and f"Chamfer distance (m), by pair, n = {pairs} " in words_of(html)
    assert "24 renders of 12 different target images" in words_of(html)


def test_the_page_lists_the_licences_of_data_and_of_every_experiment_s_weights(html):
    words = words_of(html)
    assert "geometry tiny MASt3R: bundled weights, licence Apache-2.0, source trained by this project" in words
    assert "backbone DINOv2 ViT-S/14 (random weights, untrained): random weights, licence Apache-2.0" in words
    assert "backbone of main no backbone" in words and "licence Apache-2.0 scenes" in words


def test_charts_say_whose_runs_are_untrained(html):
    captions = [words_of(caption) for caption in re.findall("<figcaption>.*?</figcaption>", html, re.DOTALL)]
    about_runs = [caption for caption in captions if "this run" in caption]
    assert about_runs and all("untrained" in caption for caption in about_runs)


def test_a_run_whose_every_render_is_broken_is_reported_in_words(tmp_path, monkeypatch):
    write_results(tmp_path, scenes_per_family=1)
    for file in (tmp_path / "data/renders").glob("*.safetensors"):
        change(file, render_aligned=torch.full((2, 3, 32, 40), torch.nan, dtype=torch.float16))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    config = load_config(PINNED, root=ROOT)
    evaluate.main(config)
    report.main(config)
    words = words_of((tmp_path / "reports/summary/index.html").read_text("utf8"))
    assert "(random weights, untrained) has no masked PSNR" in words
    assert "8 scores of psnr_masked they came out as infinite or not a number" in words


def test_runs_that_were_trained_in_another_way_are_not_compared(tmp_path):
    found = {}
    for key, value in (("seed", 0), ("geometries.tiny.max_scale", 0.4), ("datasets.procedural.episodes.alpha", 0.7)):
        run(tmp_path, f"{key}={value}")
        found[key] = read_folder(tmp_path / "reports", key)
    usual, *others = found.values()
    assert protocol_differences(usual, others[0]) == ["geometries.max_scale 0.4 instead of 0.04"]
    assert protocol_differences(usual, others[1]) == ["training.episodes.alpha 0.7 instead of 0.3"]
    assert len({each.about["arm"] for each in found.values()}) == 3


def test_hashes_say_whether_runs_share_recipe_training_scenes_and_seed(tmp_path, monkeypatch):
    write_results(tmp_path, scenes_per_family=1)
    monkeypatch.chdir(tmp_path)
    record = read_json("data/model/record.json")

    def hashes(*overrides, sha256: str | None = None, category: str = "all") -> list[str]:
        backbone = record["backbone"] | {"sha256": sha256}
        write_json("data/model/record.json", record | {"backbone": backbone, "train_category": category})
        found = experiment_record(
            load_config([*PINNED, *overrides], ROOT), {"resolution": [40, 32], "counts": {}, "absent": {}}
        )
        return [found[name] for name in ("recipe", "arm", "params")]

    usual = hashes()

    def same(found: list[str]) -> list[bool]:
        return [one == other for one, other in zip(found, usual)]

    assert same(hashes()) == [True, True, True]
    assert same(hashes("seed=1")) == [True, True, False]
    assert same(hashes(category="rooms")) == [True, False, False]
    assert same(hashes("model.feature_grid=aligned")) == [False, False, False]
    assert same(hashes(sha256="ab" * 32)) == [False, False, False]  # another file under the same path


def test_a_run_alone_is_reported_without_a_reference_and_without_git(tmp_path):
    run(tmp_path, "eval.confidence=0.9", scenes_per_family=1, weights="pretrained")
    html = (tmp_path / "reports/summary/index.html").read_text("utf8")
    words = words_of(html)
    assert "Rows that name several seeds" not in words
    assert "Brackets are 90 % intervals" in words and "; 90 % intervals" in words and "Bars: 90 % intervals" in words
    assert "there is no run without a backbone to compare it with yet" in words and "not in a Git repository" in words
    assert "dvc exp run -n base -S model.backbone=none" in words
    assert "[" not in re.search("<h1>(.*?)</h1>", html).group(1)
    bins = (tmp_path / "reports/plots/bins.csv").read_text().splitlines()
    # two scenes are too few for an interval: the cells are empty
    assert ',4,"DINOv2 ViT-S/14 (random weights, untrained)",,' in bins[1]
