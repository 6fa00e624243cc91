"""What the numbers say, in words: no more than they do."""

from src.experiments.result import ExperimentResult
from src.page.numbers import listed, number, with_limits
from src.results.statistics import ALPHA, MIN_SCENES, Comparison, Interval

BASELINE_NAMES = {
    "copy_nearest": "nearest context image copied",
    "points": "geometry points, one pixel each",
    "points_splat": "geometry points, splatted",
}
REFERENCE, CONTROL = "MASt3R only", "constant features"  # what the other experiments are compared with


def interval_words(interval: Interval, sign: bool = False) -> str:
    """+0.04 dB [−0.09, +0.17], n = 96 in 12 scenes, 3 seeds"""
    words = with_limits(interval.mean, interval.low, interval.high, sign=sign, unit="dB")
    scenes = f"{interval.scenes} scene{'' if interval.scenes == 1 else 's'}"
    seeds = f", {interval.seeds} seeds" if interval.seeds > 1 else ""
    return f"{words}, n = {interval.n} in {scenes}{seeds}"


def difference_words(label: str, other: str, comparison: Comparison) -> str:
    """One experiment against another, as a sentence."""
    interval = comparison.interval
    words = interval_words(interval, sign=True) + (", 1 seed" if interval.seeds == 1 else "")
    if interval.low is None:
        return (
            f"{label} differs from {other} by {words}: fewer than {MIN_SCENES} scenes cannot tell whether that is "
            "more than chance."
        )
    if not comparison.distinguishable:
        return f"{label} is not distinguishable from {other}: {words}."
    return f"{label} is {'better' if interval.mean > 0 else 'worse'} than {other}: {words}."


def headline(current: ExperimentResult, score: Interval | None, comparison: Comparison | None) -> str:
    """The one sentence at the top of the page; score: the mean aligned masked PSNR of this run, None without any."""
    if score is None:
        return f"{current.label} has no masked PSNR; “What was not measured” says why."
    if current.is_mast3r_only:
        return f"{current.label}, the reference of all comparisons, reaches {interval_words(score)}."
    if comparison is None:
        return f"{current.label} reaches {interval_words(score)}; there is no run without a backbone to compare it with yet."
    return difference_words(current.label, REFERENCE, comparison)


def control_words(label: str, comparison: Comparison | None) -> str | None:
    """What the headline leaves open: whether it is the features that help, or the adapter that reads them."""
    if comparison is None:
        return None
    return "Against an adapter that is told nothing: " + difference_words(label, CONTROL, comparison)


def power_words(comparison: Comparison) -> str | None:
    """What the test set could have shown, and what no test set can; None when it has too few scenes for an interval."""
    scenes, seeds, found = comparison.interval.scenes, comparison.interval.seeds, comparison.detectable
    if scenes < MIN_SCENES:
        return None
    several = [
        f"{count} {what}" for count, what in ((seeds, "seeds"), (comparison.arms, "compared experiments")) if count > 1
    ]
    could = (
        "no true difference, however large, could be called one"
        if found is None
        else f"a true difference of {number(found, 2 if found >= 0.1 else 3)} dB would be found about four times out of "
        "five"
    )
    tenth = (
        f"finding 0.1 dB would take {comparison.scenes_for_tenth} scenes"
        if comparison.scenes_for_tenth
        else "with these seeds no number of scenes is sure to find 0.1 dB"
    )
    once = (
        "The two were trained once: what another seed would change is in none of these numbers."
        if seeds == 1
        else f"The two were trained with the same {seeds} seeds: what other ones would change is in these numbers."
    )
    return (
        f"With these {listed([f'{scenes} scenes', *several])} {could}; {tenth}. Test over "
        f"scenes{'' if seeds == 1 else ' and seeds'}: p = {comparison.p:.3g}, {comparison.p_holm:.3g} after Holm's "
        f"correction (called different below {ALPHA}). {once}"
    )


def baseline_words(compared: dict[str, Comparison]) -> str:
    """How the model compares with each baseline that needs no training, by its name."""
    parts = []
    for name, comparison in compared.items():
        interval = comparison.interval
        difference = with_limits(interval.mean, interval.low, interval.high, sign=True, unit="dB")
        unsure = interval.low is not None and not comparison.distinguishable
        parts.append(f"{difference} against {BASELINE_NAMES[name]}{', not distinguishable' if unsure else ''}")
    return "Against baselines that need no training, measured in the same run: " + "; ".join(parts) + "."


def cautions(current: ExperimentResult, compared: bool) -> list[str]:
    """What a reader must know before quoting the headline."""
    words = []
    if current.about["backbone"]["weights"] == "random":
        words.append(
            "The backbone's weights are random: this run is an untrained control. It says nothing about the "
            "backbone whose architecture it borrows."
        )
    if note := current.about["backbone"].get("note"):
        words.append(note)
    if not compared and not current.is_mast3r_only:
        words.append(
            "No run without a backbone was measured in the same way. dvc exp run -n base "
            "-S model.backbone=none makes one; python -m src.report then adds it to this page."
        )
    return words
