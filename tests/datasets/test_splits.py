import hashlib

import pytest

from src.datasets.splits import LeakError, check_no_leak, share_of, split_of


def test_share_is_the_start_of_the_keys_hash():
    digest = hashlib.sha256(b"co3d/apple/110_13051_23361").digest()
    assert share_of("co3d", "apple", "110_13051_23361") == int.from_bytes(digest[:4], "big") / 2**32


def test_splits_follow_the_share():
    assert [split_of(share) for share in (0, 0.79, 0.8, 0.89, 0.91, 0.99)] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    counts = {"train": 0, "val": 0, "test": 0}
    for number in range(5000):
        counts[split_of(share_of("co3d", "car", str(number)))] += 1
    assert abs(counts["train"] - 4000) < 120 and abs(counts["val"] - 500) < 80


def test_one_photograph_in_two_splits_is_an_error():
    check_no_leak([("train", "a/1", "x"), ("train", "b/1", "x"), ("test", "c/1", "y")])
    with pytest.raises(LeakError, match=r"c/1 \(test\) and a/1 \(train\)"):
        check_no_leak([("train", "a/1", "x"), ("test", "c/1", "x")])
