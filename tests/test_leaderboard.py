import csv
import gzip
import io
import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
import scipy.stats

from src.experiments.archive import ARCHIVE, COMPRESSED, keep_result
from src.experiments.result import EXPERIMENT_FILE, RECORDS_FILE, folder_reader, write_result
from src.leaderboard import LEADERBOARD, TABLES_BEGIN, TABLES_END, main
from src.results.tables import read_rows
from src.submissions.layout import Method
from src.submissions.record import publish_scores
from tests.helpers.repository import ROOT

KEPT = ROOT / ARCHIVE / "none"  # kept by this repository: without a backbone, trained with seed 0
STEPS = json.loads((KEPT / EXPERIMENT_FILE).read_text())["protocol"]["opt"]["steps"]


def records() -> tuple[dict, list[dict]]:
    """experiment.json and records.csv of a result that this repository keeps."""
    text = gzip.decompress((KEPT / COMPRESSED[RECORDS_FILE]).read_bytes()).decode()
    return json.loads((KEPT / EXPERIMENT_FILE).read_text()), read_rows(text)


def keep(name: str, gain: float, seed: int = 0, steps: int = STEPS, **about: object) -> None:
    """Keep that result with another PSNR, seed and number of steps under a name."""
    found, rows = records()
    found["protocol"] |= {"seed": seed, "opt": found["protocol"]["opt"] | {"steps": steps}}
    changed = [row | {"psnr_masked": row["psnr_masked"] + gain} for row in rows]
    folder = Path("made") / name
    folder.mkdir(parents=True)
    write_result(folder, found | about | {"curves": []}, {}, {}, changed, [])
    keep_result(ARCHIVE, name, folder_reader(folder))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A page without tables, our parameters, and one kept result."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "docs").mkdir()
    LEADERBOARD.write_text(f"# Ours\n\n{TABLES_BEGIN}\n{TABLES_END}\n\nMore.\n")
    shutil.copytree(KEPT, ARCHIVE / "base")
    return tmp_path


def rows_of(text: str) -> list[dict[str, str]]:
    """Cells of every table's rows by the words of its head, and the number of the table."""
    found, head, place = [], [], 0
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| Rank |"):
            head, place = cells, place + 1
        elif line.startswith("| ") and "---" not in line:
            found.append(dict(zip(head, cells, strict=True)) | {"table": str(place)})
    return found


def refusal(check: bool = True) -> str:
    with pytest.raises(SystemExit) as stop:
        main(check)
    return str(stop.value.code)


def test_the_committed_page_is_what_the_records_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    main(check=True)


def test_a_number_that_was_edited_by_hand_is_found(folder):
    main(check=False)
    page = LEADERBOARD.read_text()
    for pattern in (r"\| \d\d\.\d(\d) \[", r"\| \d+\.(\d) \("):  # a score, and milliseconds
        place = re.search(pattern, page).start(1)
        LEADERBOARD.write_text(page[:place] + str((int(page[place]) + 1) % 10) + page[place + 1 :])
        assert "is not what the records give: line" in refusal() and "run python -m src.leaderboard" in refusal()
    main(check=False)
    assert LEADERBOARD.read_text() == page


def test_a_record_that_was_edited_is_found(folder):
    main(check=False)
    main(check=True)
    packed = ARCHIVE / "base" / COMPRESSED[RECORDS_FILE]
    text = gzip.decompress(packed.read_bytes()).decode()
    packed.write_bytes(gzip.compress(re.sub(r",(\d)(\d\.\d{6}),", r",9\2,", text).encode()))
    assert "is not what the records give" in refusal()


def test_scores_are_means_over_scenes_with_an_interval_of_at_least_student_s(folder):
    main(check=False)
    (row,) = rows_of(LEADERBOARD.read_text())
    by_scene: dict[str, list[float]] = {}
    for each in csv.DictReader(io.StringIO(gzip.decompress((KEPT / COMPRESSED[RECORDS_FILE]).read_bytes()).decode())):
        if each["alignment"] == "aligned" and each["psnr_masked"]:
            by_scene.setdefault(each["scene"], []).append(float(each["psnr_masked"]))
    means = [statistics.mean(values) for values in by_scene.values()]
    mean, low, high = map(float, re.fullmatch(r"(\S+) \[(\S+),\s(\S+)\]", row["PSNR, masked (dB)"]).groups())
    assert mean == pytest.approx(statistics.mean(means), abs=0.005)
    half = scipy.stats.t.ppf(0.975, len(means) - 1) * statistics.stdev(means) / len(means) ** 0.5
    assert low <= mean - half + 0.01 and high >= mean + half - 0.01 and high - low < 2.4 * half
    assert row["PSNR − that of base"] == "reference" and row["Rank"] == "–" and row["Training steps"] == str(STEPS)
    geometry = records()[0]["geometry"]
    assert row["Licence of the weights"] == f"{geometry['label']}: {geometry['licence']}"
    timed = json.loads((KEPT / "benchmark.json").read_text())
    milliseconds = f"{timed['resolutions']['128']['encode']['median_ms']:.1f}"
    machine = f"{timed['hardware']['cpu']}, {timed['hardware']['threads']} threads, 128 px"
    assert row["ms per pair"] == f"{milliseconds} ({machine})"


def test_what_may_not_be_compared_stands_in_another_table_which_says_why(folder):
    keep("long", 0.5, steps=2 * STEPS)
    keep("short", 0.5)
    main(check=False)
    text = LEADERBOARD.read_text()
    assert {row["Experiment"]: row["table"] for row in rows_of(text)} == {"short": "1", "base": "1", "long": "2"}
    assert f"Not comparable with table 1: opt.steps {2 * STEPS} instead of {STEPS}." in text
    assert text.startswith("# Ours\n") and text.endswith("\n\nMore.\n")


def test_the_best_comes_first_and_seeds_are_one_row(folder):
    found, _ = records()
    arm = found["arm"]
    for seed, gain in enumerate((1.0, 1.02, 1.04)):
        keep(
            f"better-{seed}", gain, seed, arm="another", backbone=found["backbone"] | {"name": "clip", "label": "CLIP"}
        )
    keep("base-1", 0.0, 1, arm=arm)
    main(check=False)
    first, second = rows_of(LEADERBOARD.read_text())
    assert (first["Experiment"], first["Seeds"]) == ("better-0", "0, 1, 2")
    assert (second["Experiment"], second["Seeds"]) == ("base", "0, 1")
    assert re.fullmatch(r"\+1\.02 \[\S+ \S+\], distinguishable", first["PSNR − that of base"].replace("\u00a0", " "))


def test_a_scored_method_is_a_row_of_every_table_whose_scoring_it_shares(folder):
    keep("long", 0.5, steps=2 * STEPS)
    found, rows = records()
    scoring = {key: value for key, value in found["protocol"].items() if key.startswith("eval.")}
    scoring |= {key: found["protocol"][key] for key in ("scenes", "episodes", "resolution")}
    method = Method("Grey | pictures", "CC0", "a pencil")
    publish_scores(method, scoring, rows)
    main(check=False)
    own = [row for row in rows_of(LEADERBOARD.read_text().replace("\\|", "/")) if row["Rendered by"] == "its authors"]
    assert [row["table"] for row in own] == ["1", "2"]
    assert own[0]["Model"] == "Grey / pictures" and own[0]["Licence of the weights"] == "CC0 (declared)"
    assert own[0]["ms per pair"] == "not measured; declared: a pencil" and own[0]["Seeds"] == "not declared"
    publish_scores(method, scoring | {"resolution": "64x64"}, rows)
    main(check=False)
    assert "### Table 3: methods of others alone, 64 × 64, split test" in LEADERBOARD.read_text()


def test_the_page_is_the_same_bytes_whenever_it_is_written(folder):
    keep("short", 0.5)
    main(check=False)
    first = LEADERBOARD.read_bytes()
    for name in ("short", "base"):  # listed by the file system in another order
        shutil.move(ARCHIVE / name, folder / name)
        shutil.move(folder / name, ARCHIVE / name)
    main(check=False)
    assert LEADERBOARD.read_bytes() == first


def test_a_page_without_marks_or_records_is_refused_and_stays(folder):
    LEADERBOARD.write_text(f"{TABLES_END}\n{TABLES_BEGIN}\n")
    assert (
        "must hold <!-- tables" in refusal(check=False) and LEADERBOARD.read_text() == f"{TABLES_END}\n{TABLES_BEGIN}\n"
    )
    LEADERBOARD.write_text(f"{TABLES_BEGIN}\n{TABLES_END}\n")
    shutil.rmtree(ARCHIVE)
    assert "keeps no result; python -m src.compare --publish NAME=REV keeps one" in refusal(check=False)
    LEADERBOARD.unlink()
    assert "There is no docs/leaderboard.md" in refusal()
