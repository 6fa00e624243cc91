"""What the numbers say, in words: no more than they do."""

from src.experiments.result import ExperimentResult
from src.page.numbers import listed, number, with_limits
from src.results.errors import ALPHA, MIN_SCENES
from src.results.statistics import (
    DISTINGUISHABLE,
    NO_VERDICT,
    NOT_DISTINGUISHABLE,
    POOLED,
    PRIOR,
    TOO_FEW_SCENES,
    UNDECIDABLE,
    Comparison,
    Interval,
)

BASELINE_NAMES = {
    "copy_nearest": "nearest context image copied",
    "points": "geometry points, one pixel each",
    "points_splat": "geometry points, splatted",
}
REFERENCE, CONTROL = "MASt3R only", "constant features"  # what the other experiments are compared with


def interval_words(interval: Interval, sign: bool = False) -> str:
    """+0.04 dB [−0.09, +0.17], n = 96 in 12 scenes"""
    words = with_limits(interval.mean, interval.low, interval.high, sign=sign, unit="dB")
    return f"{words}, n = {interval.n} in {interval.scenes} scene{'' if interval.scenes == 1 else 's'}"


def seed_counts(interval: Interval) -> str:
    """3 seeds, or 3 seeds against 1"""
    counts = list(dict.fromkeys(interval.seeds))  # one number where both sides have as many
    return f"{counts[0]} seed{'' if counts[0] == 1 else 's'}" + "".join(f" against {count}" for count in counts[1:])


def seed_words(interval: Interval) -> str:
    """How many seeds, and where these do not tell what others would change, what does."""
    words = seed_counts(interval)
    if interval.low is None:
        return words
    if interval.source is None:
        return f"{words}, over scenes only"
    if interval.source == PRIOR:
        return f"{words}, what others would change as measured before"
    once = set(interval.seeds) == {1}
    return f"{words}, what others would change as in the other experiments" if once else words


def difference_words(label: str, other: str, comparison: Comparison) -> str:
    """One experiment against another, as a sentence: the comparison's verdict and no more."""
    interval, verdict = comparison.interval, comparison.verdict
    words = f"{interval_words(interval, sign=True)}, {seed_words(interval)}"
    if verdict == DISTINGUISHABLE:
        return f"{label} is {'better' if interval.mean > 0 else 'worse'} than {other}: {words}."
    if verdict == NOT_DISTINGUISHABLE:
        return f"{label} is not distinguishable from {other}: {words}."
    trainings = "one training each" if set(interval.seeds) == {1} else "so few trainings"
    reason = {
        TOO_FEW_SCENES: f"fewer than {MIN_SCENES} scenes cannot tell whether that is more than chance",
        UNDECIDABLE: f"not decidable from {trainings}, since nothing says what other seeds would change",
        NO_VERDICT: "no verdict is given, since they were trained on other scenes",
    }[verdict]
    return f"{label} differs from {other} by {words}: {reason}."


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
    """What the test set could have shown, and what no test set can; None where nothing is claimed."""
    interval, found, tenth = comparison.interval, comparison.detectable, comparison.scenes_for_tenth
    if found is None:
        return None
    claims = [f"{comparison.claims} claims"] if comparison.claims > 1 else []
    needed = (
        f"finding 0.1 dB would take {tenth} scenes"
        if tenth
        else "with these seeds no number of scenes is sure to find 0.1 dB"
    )
    others = {
        PRIOR: "What other seeds would change is taken from earlier measurements (datasets.<name>.seed_sd)",
        POOLED: "What other seeds would change is estimated from all experiments here that have several",
    }[interval.source]
    return (
        f"With these {listed([f'{interval.scenes} scenes', seed_counts(interval), *claims])} a "
        f"true difference of {number(found, 2 if found >= 0.1 else 3)} dB would be found about four times out of five; "
        f"{needed}. Test over scenes and seeds: p = {comparison.p:.3g}, {comparison.p_holm:.3g} after Holm's "
        f"correction (called different below {ALPHA}). {others}."
    )


def baseline_words(compared: dict[str, Comparison]) -> str:
    """How the model compares with each baseline that needs no training, by its name."""
    parts = []
    for name, comparison in compared.items():
        interval = comparison.interval
        difference = with_limits(interval.mean, interval.low, interval.high, sign=True, unit="dB")
        word = {NOT_DISTINGUISHABLE: ", not distinguishable", UNDECIDABLE: ", over scenes only"}.get(
            comparison.verdict, ""
        )
        parts.append(f"{difference} against {BASELINE_NAMES[name]}{word}")
    return "Against baselines that need no training, measured in the same run: " + "; ".join(parts) + "."


def geometry_words(cloud: dict, moved: Interval) -> str:
    """Whether training brought the Gaussians nearer to the surfaces than the frozen points are.

    cloud   method -> alignment -> metric -> mean, std, n
    moved   Chamfer distance of the Gaussians minus that of the points
    """
    own, points = (cloud[method]["aligned"]["chamfer"]["mean"] for method in ("render", "points_splat"))
    known = moved.low is not None and not moved.holds(0)
    word = ("nearer" if moved.mean < 0 else "farther: training made geometry worse") if known else "not distinguishable"
    return (
        f"Geometry, by Chamfer distance to the true surfaces: the Gaussians {own:.3f} m, the frozen points {points:.3f} m, "
        f"{with_limits(moved.mean, moved.low, moved.high, sign=True, unit='m', digits=3)} over scenes, {word}."
    )


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
