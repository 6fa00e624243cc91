import pytest

from src.results.tables import column, groups, metrics_of, read_rows, select_rows, summarise, write_rows

ROWS = [
    {"episode": "a", "scene": "s", "bin": "wide", "method": "render", "psnr": 20.0, "ssim": None},
    {"episode": "b", "scene": "s", "bin": "close", "method": "render", "psnr": 23.0, "ssim": 0.5},
    {"episode": "c", "scene": "t", "bin": "odd", "method": "points", "psnr": 1 / 3, "ssim": None},
]


def test_tables_round_trip_to_six_decimals(tmp_path):
    write_rows(tmp_path / "new/rows.csv", ROWS)
    text = (tmp_path / "new/rows.csv").read_text()
    assert text.splitlines()[:2] == ["episode,scene,bin,method,psnr,ssim", "a,s,wide,render,20.000000,"]
    rows = read_rows(text)
    assert rows[:2] == ROWS[:2] and rows[2]["psnr"] == 0.333333


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_and_nothing_written(tmp_path, value):
    with pytest.raises(ValueError, match="psnr came out as"):
        write_rows(tmp_path / "rows.csv", [{"psnr": value}])
    assert list(tmp_path.iterdir()) == []


def test_absent_scores_are_left_out_of_means():
    assert metrics_of(ROWS) == ["psnr", "ssim"]
    assert column(ROWS, "ssim") == ([0.5], ["s"]) and column(ROWS, "lpips") == ([], [])
    assert summarise(select_rows(ROWS, method="render")) == {
        "psnr": {"mean": 21.5, "std": pytest.approx(4.5**0.5), "n": 2},
        "ssim": {"mean": 0.5, "n": 1},
    }
    assert summarise(select_rows(ROWS, method="points")) == {"psnr": {"mean": 1 / 3, "n": 1}}
    assert summarise([]) == {}


def test_bins_run_from_close_to_wide():
    assert groups(ROWS, "bin") == ["close", "wide", "odd"] and groups(ROWS, "scene") == ["s", "t"]
