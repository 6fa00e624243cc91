"""Train, validation, development and test: whole scenes, never frames, and the same on every machine."""

import hashlib
from typing import Iterable, Iterator

DIVIDED = ("train", "val", "test")  # what every dataset is divided into; `dev` is the procedural scenes' alone


class LeakError(ValueError):
    """A scene or a photograph that occurs in two splits."""


def share_of(dataset: str, category: str, sequence: str) -> float:
    """A number in [0, 1) that depends on the scene's name alone: 8 hex digits of the SHA-256 of its key."""
    key = f"{dataset}/{category}/{sequence}"
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def split_of(share: float, train: float = 0.8, val: float = 0.1) -> str:
    """The split of a scene with that share: train below `train`, then `val` as much, test above."""
    return "train" if share < train else "val" if share < train + val else "test"


def leaks(photographs: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """A sentence for each photograph that an earlier one of another split equals; arguments as in `check_no_leak`."""
    first = {}
    for split, where, content in photographs:
        earlier_split, earlier_where = first.setdefault(content, (split, where))
        if earlier_split != split:
            yield f"{where} ({split}) and {earlier_where} ({earlier_split}) are the same"


def check_no_leak(photographs: Iterable[tuple[str, str, str]]) -> None:
    """photographs: (split, where, content hash or scene key) of all that a dataset holds.

    raises    LeakError when one content occurs in two splits
    """
    for leak in leaks(photographs):
        raise LeakError(f"{leak}, but no photograph may occur in two splits; remove one of them from the raw data.")
