import csv
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

from src.compare import main
from src.page.tradeoffs import pareto_front
from src.reproducible.files import write_json
from src.results.tables import read_rows
from tests.helpers.publishing import BENCHMARK, MEMORY, TIMING, publish
from tests.helpers.repository import ROOT


@pytest.fixture
def compare(repository, monkeypatch, capsys):
    shutil.copy(ROOT / "params.yaml", repository)
    monkeypatch.chdir(repository)

    def run(*words, **options) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(words), **options)
        return stop.value.code, *capsys.readouterr()

    return run


def test_all_experiments_of_the_commit_are_compared_with_the_baseline(compare):
    code, table, said = compare()
    assert code == 0 and "| better |" in table and "| long |" not in table and "PSNR - main" in table
    assert "Refused: long was measured in another way: opt.steps 900 instead of 300." in said
    with open("reports/comparison/table.csv") as file:
        rows = {(row["run"], row["metric"]): row for row in csv.DictReader(file)}
    scores = [
        row["psnr_masked"]
        for row in read_rows(Path("reports/records.csv").read_text())
        if row["alignment"] == "aligned"
    ]
    assert float(rows["this run", "psnr_masked"]["mean"]) == pytest.approx(np.mean(scores), abs=2e-6)
    better = rows["better", "psnr_masked"]
    assert float(better["low"]) < float(better["difference"]) < float(better["high"])
    assert better["verdict"] == "distinguishable" and rows["better", "lpips"]["verdict"] == "not measured"
    assert rows["main", "psnr_masked"]["verdict"] == "reference" and rows["main", "lpips"]["mean"] == ""
    ranks = {
        name: (rows[name, "psnr_masked"]["rank_best"], rows[name, "psnr_masked"]["rank_worst"])
        for name in ("this run", "main", "better")
    }
    assert all(1 <= int(best) <= int(worst) <= 3 for best, worst in ranks.values()) and "| Rank |" in table
    assert int(ranks["better"][1]) <= int(ranks["main"][1]) and rows["better", "ssim"]["rank_best"] == ""
    written = json.loads(Path("reports/comparison/comparison.json").read_text())
    assert written["reference"] == "main" and written["refused"] == {"long": ["opt.steps 900 instead of 300"]}


def test_the_confidence_of_the_intervals_is_the_configured_one(compare):
    assert "| PSNR - main [95 %] |" in compare()[1]
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("confidence: 0.95", "confidence: 0.9"))
    assert "| PSNR - main [90 %] |" in compare()[1]
    assert json.loads(Path("reports/comparison/comparison.json").read_text())["confidence"] == 0.9


def test_what_was_measured_in_another_way_is_refused_by_name(compare):
    code, _, refusal = compare("long")
    assert code == 1 and "Refused: this run" in refusal and "opt.steps 300 instead of 900" in refusal
    assert "no such revision" in compare("nowhere")[0]


def test_named_revisions_alone_are_compared_and_the_baseline_is_found_among_them(compare):
    code, table, _ = compare("better", "main")
    assert code == 0 and "this run" not in table and table.splitlines()[3].startswith("| main |")
    assert "PSNR - main" in table


def test_without_a_baseline_differences_are_from_the_first(compare):
    publish(Path(), "vit", 0.2)
    _, table, said = compare("better")
    assert "PSNR - better" in table and "this run: vit is worse than clip: −0." in said


def test_files_open_without_a_network(compare):
    compare()
    html = Path("reports/comparison/index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)|url\([^#]", html) and "default-src 'none'" in html
    assert "untrained" in html  # the weights of all are random
    assert xml.parse("reports/comparison/forest.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in Path("reports/comparison/forest.svg").read_text()


def priced(milliseconds: float, device: str = "cpu") -> dict:
    numbers = {"encode": TIMING | {"median_ms": milliseconds}, "inference_memory": MEMORY | {"peak_bytes": 2**30}}
    return BENCHMARK | {
        "hardware": {"cpu": "x"},
        "device": device,
        "resolutions": {"128": BENCHMARK["resolutions"]["128"] | numbers},
        "parameters": {"backbone": 3_000_000, "trainable": 1, "decoder": 1_000_000},
    }


def test_the_price_of_quality_is_drawn_for_one_machine(compare):
    compare("main")
    assert not list(Path("reports/comparison").glob("pareto*"))
    about = json.loads(Path("reports/experiment.json").read_text())
    about["benchmark_params"], about["protocol"]["resolution"] = "p", "128x128"
    write_json("reports/experiment.json", about)
    write_json("reports/benchmark.json", priced(20.0))

    for words in (["add", "-A"], ["commit", "-qm", "fast"]):
        subprocess.run(["git", *words], check=True)
    write_json("reports/benchmark.json", priced(70.0))
    _, table, _ = compare("HEAD")
    assert "| 70.0 | 4.0 | 1024.0 |" in table and "| 20.0 | 4.0 |" in table
    assert {path.stem for path in Path("reports/comparison").glob("pareto*")} == {
        "pareto_milliseconds",
        "pareto_parameters",
        "pareto_memory",
    }
    write_json("reports/benchmark.json", priced(7.0, "cuda"))
    _, table, _ = compare("HEAD")
    assert "| 7.0 (cuda) | 4.0 | 1024.0 (cuda) |" in table and "| 20.0 | 4.0 | 1024.0 |" in table
    assert not list(Path("reports/comparison").glob("pareto*"))
    assert json.loads(Path("reports/comparison/comparison.json").read_text())["costs_unlike"] == {"this run": ["cuda"]}


def test_the_front_holds_what_nothing_beats():
    points = {"slow": (9.0, 20.0), "best": (5.0, 21.0), "cheap": (1.0, 18.0), "worse": (2.0, 17.0), "tie": (5.0, 20.5)}
    by_loops = {
        name
        for name, (cost, quality) in points.items()
        if not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points.values())
    }
    assert pareto_front(points) == ["cheap", "best"] and set(pareto_front(points)) == by_loops


def test_training_on_one_family_is_tabled_against_scoring_on_each(compare):
    publish(Path(), "vit", 1.0, trained=("procedural", "objects"))

    for words in (["add", "-A"], ["commit", "-qm", "objects"]):
        subprocess.run(["git", *words], check=True)
    publish(Path(), "vit", 0.0, trained=("procedural", "rooms"))
    code, table, said = compare("HEAD")
    assert code == 0 and "| HEAD (trained on objects) |" in table and "| this run (trained on rooms) |" in table
    assert "dB [" in said and ": no verdict is given, since they were trained on other scenes." in said
    matrix = json.loads(Path("reports/comparison/comparison.json").read_text())["generalisation"]["vit"]
    assert matrix["objects"]["rooms"]["mean"] - matrix["rooms"]["rooms"]["mean"] == pytest.approx(1.0, abs=0.3)
    page = Path("reports/comparison/index.html").read_text()
    assert "trained on (rows)" in page and ", n = 24 in 8</td>" in page


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fresh_clone_without_experiments_makes_the_published_comparison_again(compare, tmp_path_factory, monkeypatch):
    """To the byte, on another branch, although the clone has no `dvc exp` reference and a later timing of its own."""
    publish(Path(), "vit", 0.0, noise=3)
    for words in (["add", "-A"], ["commit", "-qm", "this run"]):
        subprocess.run(["git", *words], check=True)
    commits = subprocess.run(["git", "rev-list", "HEAD"], check=True, capture_output=True, text=True).stdout.split()
    better = subprocess.run(
        ["git", "for-each-ref", "--format=%(objectname) %(refname)"], capture_output=True, text=True
    )
    better = next(line.split()[0] for line in better.stdout.splitlines() if line.endswith("/better"))
    code, table, _ = compare("vits=HEAD", f"base={commits[1]}", f"better={better}", publish=True)
    assert code == 0 and "| this run (vits) |" in table and "| base |" in table and "| better |" in table
    assert set(files_of(Path("reports/experiments/better"))) == {
        "benchmark.json",
        "experiment.json",
        "metrics.json",
        "records.csv.gz",
        "train_loss.csv",
    }
    for words in (["add", "-A"], ["commit", "-qm", "kept"], ["branch", "-m", "other"]):
        subprocess.run(["git", *words], check=True)
    published = files_of(Path("reports/comparison"))
    clone = tmp_path_factory.mktemp("clone") / "fresh"
    subprocess.run(["git", "clone", "-q", "--single-branch", str(Path.cwd()), clone], check=True)
    monkeypatch.chdir(clone)
    assert not subprocess.run(["git", "for-each-ref", "refs/exps"], capture_output=True).stdout
    shutil.rmtree("reports/comparison")
    assert compare()[0] == 0 and files_of(Path("reports/comparison")) == published


def test_nothing_is_kept_where_one_name_is_wrong(compare):
    code, _, _ = compare("better", "nowhere", publish=True)
    assert "nowhere: no such revision or experiment" in code and not Path("reports/experiments").exists()
    assert "names nothing to keep" in compare(publish=True)[0]
    assert "cannot name a folder" in compare("../x=better", publish=True)[0]
    assert compare("better", publish=True)[0] == 0
    kept = files_of(Path("reports/experiments/better"))["records.csv.gz"]
    assert compare("better", publish=True)[0] == 0  # again: the same bytes
    assert files_of(Path("reports/experiments/better"))["records.csv.gz"] == kept


def test_other_code_is_refused_unless_asked_for_and_then_said_beside_every_number(compare):
    publish(Path(), "vit", 0.4, noise=3, code="d" * 16)
    write_json("reports/benchmark.json", priced(7.0))
    code, table, said = compare("main")
    assert (
        code == 1 and "| this run" not in table and "Refused: this run was measured in another way: other code." in said
    )
    code, table, said = compare("main", across_code=True)
    assert code == 0 and "| this run (other code) |" in table and "this run (other code): vit" in said
    assert "this run was not computed as main was: other code." in said
    with open("reports/comparison/table.csv") as file:
        assert {row["note"] for row in csv.DictReader(file) if row["run"] == "this run"} == {"other code"}
    assert "this run (other code)" in Path("reports/comparison/forest.svg").read_text()


def test_what_was_scored_on_another_dataset_stands_in_the_table_of_generalisation_alone(compare):
    publish(Path(), "vit", 0.4, noise=3, category="apple", dataset="co3d", scenes="b" * 64, resolution="48x48")
    code, table, said = compare("main")
    assert code == 0 and "| this run" not in table and "this run was scored on co3d: it stands in" in said
    assert "generalisation" in Path("reports/comparison/comparison.json").read_text()


def test_another_processor_is_said(compare):
    about = json.loads(Path("reports/experiment.json").read_text()) | {"benchmark_params": "p"}
    about["protocol"]["resolution"] = "128x128"
    write_json("reports/experiment.json", about)
    write_json("reports/benchmark.json", priced(20.0) | {"hardware": {"cpu": "x", "instructions": "AVX2"}})
    for words in (["add", "-A"], ["commit", "-qm", "there"]):
        subprocess.run(["git", *words], check=True)
    write_json("reports/benchmark.json", priced(20.0) | {"hardware": {"cpu": "x", "instructions": "AVX512"}})
    said = compare("HEAD")[2]
    assert "this run was not computed on the machine of HEAD: instruction set AVX512 instead of AVX2." in said
