"""Numbers as the page and the comparison write them, each form in one function."""

import re

NOT_MEASURED = "not measured"
DIGITS = {"psnr": 2}  # three for every other metric


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """-0.041 -> −0.04, with a true minus and never a signed zero."""
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    zero = float(text) == 0
    return (("±" if sign else "") + text.lstrip("+-") if zero else text).replace("-", "−")


def with_limits(
    value: float, low: float | None, high: float | None, digits: int = 2, sign: bool = False, unit: str = ""
) -> str:
    """+0.04 dB [−0.09, +0.17]; the value alone where there are no limits."""
    limits = "" if low is None else f" [{number(low, digits, sign)}, {number(high, digits, sign)}]"
    return number(value, digits, sign) + (f" {unit}" if unit else "") + limits


def unbroken(words: str) -> str:
    """No line may end inside the brackets of an interval."""
    return re.sub(r"\[(.*?), (.*?)\]", "[\\1,\u00a0\\2]", words)


def plus_minus(entry: dict | None, metric: str) -> str:
    """22.10 ± 3.01 of a mean with its std, or the words for an absent score."""
    if entry is None:
        return NOT_MEASURED
    digits = DIGITS.get(metric.split("_")[0], 3)
    return number(entry["mean"], digits) + (f" ± {number(entry['std'], digits)}" if "std" in entry else "")


def level_words(confidence: float) -> str:
    """95 %"""
    return f"{100 * confidence:g} %"


def rank_words(rank: tuple[int, int] | None) -> str:
    """2, or 1–3; nothing without a rank."""
    if rank is None:
        return ""
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def listed(words: list[str]) -> str:
    """a, b and c"""
    *others, last = words
    return " and ".join([", ".join(others), last] if others else [last])
