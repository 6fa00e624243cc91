from src.page.score_tables import cloud_table, group_table, score_table

SCORES = {"psnr_masked": {"mean": 20.126, "std": 3.0, "n": 9}, "ssim_masked": {"mean": 0.5, "n": 1}}
TREE = {method: {"raw": SCORES, "aligned": SCORES} for method in ("render", "copy_nearest", "points", "points_splat")}
NAMES = {"psnr_masked": "PSNR", "ssim_masked": "SSIM", "lpips_masked": "LPIPS"}


def test_tables_leave_out_what_nobody_measured_and_the_second_copy_of_an_image():
    table = score_table(TREE, NAMES)
    assert table["head"] == ["", "scale", "PSNR", "SSIM", "n"] and len(table["rows"]) == 7
    assert ["nearest context image copied", "any", "20.13 ± 3.00", "0.500", "9"] in table["rows"]
    empty = TREE | {"points": {"raw": {}, "aligned": {}}}
    assert len(score_table(empty, NAMES)["rows"]) == 5
    rows = group_table({"very_wide": TREE, "close": empty}, "overlap")["rows"]
    assert [row[0] for row in rows] == ["close", "medium", "wide", "very wide"]
    assert rows[3][1:] == [*["20.13 ± 3.00"] * 4, "9"] and rows[0][3] == "not measured"
    assert rows[1][1:] == [*["not measured"] * 4, "0"]
    assert len(group_table({"rooms": TREE}, "scenes")["rows"]) == 1


def test_clouds_of_scenes_without_metres_have_one_row_per_method():
    scores = {"chamfer": {"mean": 0.5, "std": 0.1, "n": 4}}
    for raw, alignments in ((scores, ["raw", "aligned"]), ({}, ["aligned"])):
        tree = {"raw": raw, "aligned": scores}
        rows = cloud_table({"render": tree, "points_splat": tree})["rows"]
        assert [row[1] for row in rows] == 2 * alignments and len({row[0] for row in rows}) == 2
    assert len(cloud_table({"render": tree, "points_splat": {"raw": {}, "aligned": {}}})["rows"]) == 1
