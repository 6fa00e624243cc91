from src.page.numbers import number, plus_minus, rank_words, unbroken, with_limits


def test_numbers_have_a_true_minus_and_no_signed_zero():
    assert [number(-0.094), number(-0.001)] == ["−0.09", "0.00"]
    assert [number(0.041, 2, True), number(-0.001, 2, True)] == ["+0.04", "±0.00"]


def test_limits_stand_in_brackets_where_there_are_any():
    assert with_limits(-0.04, -0.1, 0.02, sign=True) == "−0.04 [−0.10, +0.02]"
    assert with_limits(0.04, None, None, sign=True, unit="dB") == "+0.04 dB"
    assert with_limits(20.123, 19.5, 20.75, unit="dB") == "20.12 dB [19.50, 20.75]"
    assert with_limits(50.06, 45, 61.2, digits=1) == "50.1 [45.0, 61.2]"


def test_scores_are_shown_with_their_spread_and_absent_ones_in_words():
    assert plus_minus({"mean": 20.126, "std": 3.0, "n": 9}, "psnr") == "20.13 ± 3.00"
    assert plus_minus({"mean": 0.5, "n": 1}, "ssim") == "0.500"
    assert plus_minus(None, "lpips") == "not measured"


def test_ranks_are_one_number_or_a_range():
    assert (rank_words(None), rank_words((2, 2)), rank_words((1, 3))) == ("", "2", "1–3")


def test_intervals_are_kept_on_one_line():
    assert unbroken("x [−0.09, +0.17], n = 9, y") == "x [−0.09,\u00a0+0.17], n = 9, y"
