"""What the features know and add, as tables and one sentence."""

from src.page.numbers import NOT_MEASURED, number, with_limits
from src.results.statistics import ALPHA
from src.results.tables import BINS

TARGET_TITLES = {
    "log_depth": "logarithm of depth",
    "normals": "surface normals",
    "distance": "distance error of the points",
    "direction": "direction error of the points",
    "correction": "depth error after comparing views",
}
INPUT_TITLES = {
    "position": "place alone",
    "features": "features",
    "tokens": "geometry's tokens",
    "both": "tokens and features",
    "features_pca": "features' principal components",
    "both_pca": "tokens and principal components",
}
ADDED_TITLES = {  # and units
    "log_depth": ("depth", "log of the ratio of squared errors"),
    "normals": ("normals", "log of the ratio of squared errors"),
    "correction": ("what corrects the geometry's depth", "log of the ratio of squared errors"),
    "psnr_masked": ("splatted points moved by it", "dB, masked"),
    "pck_1": ("matches within 1 cell", "share of cells, features alone minus tokens alone"),
    "distance": ("distance error of the points", "log of the ratio of squared errors"),
    "direction": ("direction error of the points", "log of the ratio of squared errors"),
    "line_1": ("matches within 1 cell of the epipolar line", "share of cells, features alone minus tokens alone"),
    "line_2": ("matches within 2 cells of the epipolar line", "share of cells, features alone minus tokens alone"),
    "log_depth_pca": ("depth, by principal components", "log of the ratio of squared errors"),
    "normals_pca": ("normals, by principal components", "log of the ratio of squared errors"),
    "pck_2": ("matches within 2 cells", "share of cells, features alone minus tokens alone"),
}
MATCHED = {  # what matches are held against -> table of the summary, title
    "pck": ("correspondence", "Matches within 1 / 2 cells"),
    "line": ("epipolar", "Matches within 1 / 2 cells of the epipolar line, where depth is unknown"),
}


def readout_table(probes: dict) -> dict | None:
    """R² on test patches, a row per target and a column per kind of inputs; None without readouts."""
    readouts = probes.get("readouts") or {}
    kinds = [kind for kind in INPUT_TITLES if any(kind in each for each in readouts.values())]
    rows = [
        [title, *(number(readouts[name][kind]["r2"], 3) if kind in readouts[name] else "–" for kind in kinds)]
        for name, title in TARGET_TITLES.items()
        if any("r2" in found for found in readouts.get(name, {}).values())
    ]
    return {"head": ["R² of", *(INPUT_TITLES[kind] for kind in kinds)], "rows": rows} if rows else None


def difference_with_limits(found: dict) -> str:
    """-0.339 [-0.504, -0.173], of a difference of src/probes/compared.py."""
    return with_limits(found["mean"], found["low"], found["high"], 3, sign=True)


def added_table(probes: dict) -> dict | None:
    """What features add to the geometry's tokens, with intervals over scenes; None where there is nothing to compare."""
    rows = []
    for name, (title, unit) in ADDED_TITLES.items():
        if found := (probes.get("added") or {}).get(name):
            difference = difference_with_limits(found)
            verdict = ""
            if found["p_holm"] is not None:
                verdict = "distinguishable from 0" if found["p_holm"] < ALPHA else "not distinguishable from 0"
            rows.append([title, unit, difference, verdict, str(found["scenes"])])
    return (
        {"head": ["Added by the features", "unit", "difference", "verdict", "scenes"], "rows": rows} if rows else None
    )


def match_table(probes: dict, place: str = "pck") -> dict | None:
    """Shares of matched cells by overlap of the context views; None without any. place: what matches are held against."""
    table, title = MATCHED[place]
    matches = probes.get(table) or {}
    columns = [name for name in ("all", *BINS) if any(name in each for each in matches.values())]

    def cell(kind: str, column: str) -> str:
        found = matches[kind].get(column)
        if found is None:
            return NOT_MEASURED
        return f"{number(found[f'{place}_1'], 3)} / {number(found[f'{place}_2'], 3)}"

    rows = [
        [INPUT_TITLES[kind], *(cell(kind, column) for column in columns)]
        for kind in ("tokens", "features")
        if kind in matches
    ]
    head = [title, *(column.replace("_", " ") for column in columns)]
    return {"head": head, "rows": rows} if rows else None


def compared_probes(found: dict[str, dict[str, dict]]) -> tuple[list[str], list[list[str]]] | None:
    """Head and rows: what each experiment's features add to the geometry's tokens. found: name -> probe -> difference."""
    shown = [name for name in ADDED_TITLES if any(name in each for each in found.values())]

    rows = [
        [name, *(difference_with_limits(each[probe]) if probe in each else NOT_MEASURED for probe in shown)]
        for name, each in found.items()
    ]
    return (["Run", *(ADDED_TITLES[probe][0] for probe in shown)], rows) if rows else None


def twin_words(first: str, second: str, found: dict[str, dict]) -> str:
    """What a pretrained network's features know more than those of the same network untrained."""
    parts = []
    for probe, each in found.items():
        unit = "share of cells" if probe.startswith("pck") else "log of the ratio of squared errors"
        better = each["mean"] > 0 if probe.startswith("pck") else each["mean"] < 0
        verdict = "not distinguishable"
        if each["p_holm"] is not None and each["p_holm"] < ALPHA:
            verdict = "better" if better else "worse"
        parts.append(f"{ADDED_TITLES[probe][0]} {difference_with_limits(each)} ({unit}), {verdict}")
    return f"Features of {first} against those of {second}, its untrained twin, read out alone: {'; '.join(parts)}."


def relation_words(rho: float, low: float, high: float, count: int) -> str:
    """Whether the closed-form probe foretells what training gains."""
    known = "the two go together" if low > 0 else "the two are not shown to go together"
    return (
        f"Rank correlation between what a closed-form readout of the features adds and what the trained model gains, over "
        f"{count} experiments: {with_limits(rho, low, high, sign=True)}, so {known}. The interval is over resampled "
        "scenes."
    )


def probe_words(probes: dict) -> str | None:
    """The other half of the page's answer: what the features know and add, without any training."""
    added, readouts = probes.get("added") or {}, probes.get("readouts") or {}
    if "psnr_masked" not in added or "r2" not in readouts.get("log_depth", {}).get("features", {}):
        return None
    depth, gain = readouts["log_depth"], added["psnr_masked"]
    return (
        f"Read out in closed form, without training or seed: {probes['backbone']} alone explains "
        f"{number(100 * depth['features']['r2'], 1)} % of the variance of log-depth (the geometry's tokens "
        f"{number(100 * depth['tokens']['r2'], 1)} %, place alone {number(100 * depth['position']['r2'], 1)} %); "
        "splatted points moved by what tokens and features say score "
        f"{with_limits(gain['mean'], gain['low'], gain['high'], sign=True, unit='dB')} against tokens alone."
    )
