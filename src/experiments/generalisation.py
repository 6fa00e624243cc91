"""Trained on these scenes, scored on those: one recipe over families of scenes and over datasets."""

from src.experiments.publish import score_interval
from src.experiments.result import ExperimentResult, protocol_differences
from src.results.tables import Row, groups, select_rows

# what may differ within a table: the scenes trained on, the scenes scored, and what hangs on these
SCENES_APART = ("training", "dataset", "scenes", "episodes", "resolution", "targets")
MOST_FAMILIES = 4  # a dataset of more is one column

Cell = dict[str, float | int | None]  # mean, low, high, n, scenes
Matrix = dict[str, dict[str, Cell]]  # trained on -> scored on -> score


def training_words(result: ExperimentResult, several: bool) -> str:
    """The scenes that a model was trained on: rooms, or all; with several datasets co3d, or procedural rooms."""
    training = result.about["protocol"].get("training", {})
    dataset, category = training.get("dataset"), training.get("category", "all")
    if not several:
        return category
    return dataset if category == "all" else f"{dataset} {category}"


def scored_tables(result: ExperimentResult) -> dict[str, list[Row]]:
    """Family, or dataset where it has many -> aligned rows."""
    rows = select_rows(result.rows, alignment="aligned")
    families, dataset = groups(rows, "category"), str(result.about["protocol"].get("dataset"))
    if len(families) > MOST_FAMILIES:
        return {dataset: rows}
    return {family: select_rows(rows, category=family) for family in families}


def scored_cells(result: ExperimentResult, several: bool, confidence: float) -> dict[str, Cell]:
    """Scored on -> masked PSNR and its interval over scenes; several: more than one dataset is in the table, so names say
    which."""
    dataset, found = result.about["protocol"].get("dataset"), {}
    for name, rows in scored_tables(result).items():
        if interval := score_interval(rows, confidence):
            scored = f"{dataset} {name}" if several and name != dataset else name
            found[scored] = {
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
                "scenes": interval.scenes,
            }
    return found


def generalisation(results: list[ExperimentResult], confidence: float, free: tuple[str, ...] = ()) -> dict[str, Matrix]:
    """recipe -> what it was trained on -> what it was scored on -> score, of results that differ from the first in
    scenes and `free` settings at most. A recipe of one training that was scored on its dataset alone is left out. Those
    that share label and detail are told apart by the name of their first run."""
    recipes: dict[str, list[ExperimentResult]] = {}
    for each in results:
        if not each.is_outside and not protocol_differences(results[0], each, (*SCENES_APART, *free)):
            recipes.setdefault(each.about["recipe"], []).append(each)

    def spread(key: str, members: list[ExperimentResult]) -> int:
        return len({str(each.about["protocol"].get(key)) for each in members})

    def across(each: ExperimentResult) -> bool:
        protocol = each.about["protocol"]
        return protocol.get("training", {}).get("dataset") != protocol.get("dataset")

    tabled = [own for own in recipes.values() if spread("training", own) > 1 or any(map(across, own))]
    words = [" · ".join(filter(None, (own[0].label, own[0].about["detail"]))) for own in tabled]  # however many seeds
    names = [f"{word} · {own[0].name}" if words.count(word) > 1 else word for word, own in zip(words, tabled)]
    matrices: dict[str, Matrix] = {}
    for name, own in zip(names, tabled):
        several = spread("dataset", own) > 1 or any(map(across, own))
        matrix = matrices.setdefault(name, {})
        for each in own:
            trained = matrix.setdefault(training_words(each, several), {})
            for scored, cell in scored_cells(each, several, confidence).items():
                trained.setdefault(scored, cell)
    return matrices
