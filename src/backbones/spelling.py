"""Names that were perhaps meant: networks are written ViT-B/32, vitb32 or vit_base_patch32, in any case and order."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

VIT_SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
VIT = re.compile(r"vit[-_ ]?([tslbhg])[-_/ ]?(\d+)")
COMPARED = 40  # names, those that share most words: comparing letters takes time


def words_of(name: str) -> list[str]:
    """The words and numbers of a name in lower case and alphabetical order: what spellings of it share."""
    name = VIT.sub(lambda found: f"vit_{VIT_SIZES[found[1]]}_patch{found[2]}_", name.lower())
    return sorted(re.findall(r"[a-z]+|[0-9]+", name))


def names_like(name: str, names: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """At most three of the names that are like `name`, the nearest first."""
    wanted = words_of(name)

    def unlike(known: list[str]) -> float:
        return -len(set(wanted) & set(known)) / len({*wanted, *known, ""})

    split = sorted(((unlike(words := words_of(known)), " ".join(words), known) for known in names))[:COMPARED]
    spelled: dict[str, str] = {}
    for _, words, known in split:
        spelled.setdefault(words, known)
    return [spelled[found] for found in get_close_matches(" ".join(wanted), spelled, 3, cutoff)]
