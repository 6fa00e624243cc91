"""The tables of docs/leaderboard.md: every result whose records Git keeps, beside what it may be compared with.

    python -m src.leaderboard            write the tables again
    python -m src.leaderboard --check    write nothing; exit status 1 where the page is not what the records give

reads reports/experiments, reports/scored and params.yaml (confidence, what seeds change); writes docs/leaderboard.md
between its two marks, and leaves its other text as it is
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from src.compare import LIMITS, Table, markdown, score_rows, sentences, tabulate
from src.config import load_config
from src.experiments.archive import ARCHIVE, kept_results
from src.experiments.comparisons import outside
from src.experiments.publish import scene_interval
from src.experiments.result import METRIC, REPORTS, ExperimentResult, merge_seeds, protocol_differences
from src.page.numbers import DIGITS, NOT_MEASURED, level_words, listed, number, rank_words, unbroken, with_limits
from src.page.speed import at_resolution, timings
from src.reproducible.files import write_whole
from src.results.tables import HEADLINE, METRIC_TITLES, column, select_rows
from src.run import Words, mistakes_explained

LEADERBOARD = Path("docs/leaderboard.md")
TABLES_BEGIN, TABLES_END = (f"<!-- {words} -->" for words in ("tables: python -m src.leaderboard", "tables end"))
TRAINED_APART = ("training",)  # what may differ within a table: such a row has no verdict


@dataclass(frozen=True)
class Board:
    """Results that may be compared with each other, and in what the first of them differs from that of the first board."""

    table: Table
    apart: list[str]


def comparable_groups(results: list[ExperimentResult]) -> list[list[ExperimentResult]]:
    """Results by what they may be compared with. One of another project's method stands in every group that it shares
    scenes, episodes, resolution, masks and trunks with, or in one of its own."""
    groups: list[list[ExperimentResult]] = []
    for each in sorted(results, key=lambda result: result.is_outside):  # a stable order: ours first
        fitting = [group for group in groups if not protocol_differences(group[0], each, TRAINED_APART)]
        for group in fitting if each.is_outside else fitting[:1]:
            group.append(each)
        if not fitting:
            groups.append([each])
    return groups


def boards(results: list[ExperimentResult]) -> list[Board]:
    """A board per group. Confidence, and what seeds change where nothing tells, are those of the group's dataset."""
    groups, found = comparable_groups(results), []
    for group in groups:
        dataset = group[0].about["protocol"].get("dataset")
        config = load_config([f"data.dataset={dataset}"] if dataset else [])
        found.append(Board(tabulate(group, config), protocol_differences(groups[0][0], group[0], TRAINED_APART)))
    return found


def score_words(result: ExperimentResult, metric: str, confidence: float) -> str:
    """19.69 [18.53, 20.86]: mean over scenes that weigh the same, and its interval over scenes."""
    values, scenes = column(select_rows(result.rows, alignment="aligned"), metric)
    if not values:
        return NOT_MEASURED
    found = scene_interval(values, scenes, confidence)
    return unbroken(with_limits(found.mean, found.low, found.high, DIGITS.get(metric.split("_")[0], 3)))


def against_reference(row: dict) -> str:
    """+0.38 [+0.10, +0.66], distinguishable; of a row of `score_rows`."""
    if row["difference"] is None:
        return row["verdict"]
    return unbroken(f"{with_limits(*(row[key] for key in LIMITS), sign=True)}, {row['verdict']}")


def licence_words(result: ExperimentResult) -> str:
    """Licences of all weights that were not trained here; what a method's authors declare is said to be so."""
    if result.is_outside:
        return f"{result.about['declared']['licence']} (declared)"
    named = [result.about[part] for part in ("geometry", "backbone")]
    return "; ".join(f"{part['label']}: {part['licence']}" for part in named if part["weights"] != "none")


def speed_words(result: ExperimentResult) -> str:
    """195.7 (AMD EPYC, 2 threads, 128 px): median milliseconds from two images to Gaussians, and on what."""
    if result.is_outside:
        return f"{NOT_MEASURED}; declared: {result.about['declared']['hardware']}"
    benchmark, found = timings(result), at_resolution(result)
    if benchmark is None or found is None:
        return NOT_MEASURED
    side, costs = found
    machine = benchmark.hardware["gpu" if benchmark.device == "cuda" else "cpu"]
    threads = [] if benchmark.device == "cuda" else [f"{benchmark.hardware['threads']} threads"]
    return f"{number(costs.encode.median_ms, 1)} ({', '.join([machine, *threads, f'{side} px'])})"


def steps_words(result: ExperimentResult) -> str:
    return "not declared" if result.is_outside else str(result.about["protocol"]["opt"]["steps"])


def board_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and cells: a row per result, the highest masked PSNR first."""
    head = [
        "Rank",
        "Experiment",
        "Model",
        *(METRIC_TITLES[metric] for metric in HEADLINE),
        f"PSNR − that of {table.reference.name}",
        "Seeds",
        "Licence of the weights",
        "Training steps",
        "ms per pair",
        "Rendered by",
    ]
    own = {row["run"]: row for row in score_rows(table) if row["metric"] == METRIC}
    scored = {name: row["mean"] if row["mean"] is not None else float("-inf") for name, row in own.items()}
    cells = []
    for each in sorted(table.results, key=lambda result: (-scored[result.name], result.name)):
        cells.append(
            [
                rank_words(table.verdicts.ranks.get(each.name)) or "–",
                table.title(each.name),
                each.label if each.is_outside else " · ".join(filter(None, (each.label, each.about["detail"]))),
                *(score_words(each, metric, table.confidence) for metric in HEADLINE),
                against_reference(own[each.name]),
                "not declared" if each.is_outside else ", ".join(map(str, each.runs)),
                licence_words(each),
                steps_words(each),
                speed_words(each),
                "its authors" if each.is_outside else "this project",
            ]
        )
    return head, cells


def title_words(result: ExperimentResult) -> str:
    """procedural, posed, 128 × 128, split test"""
    protocol = result.about["protocol"]
    size, split = protocol["resolution"].replace("x", " × "), f"split {protocol['eval.split']}"
    if result.is_outside:
        return f"methods of others alone, {size}, {split}"
    return f"{protocol['dataset']}, {protocol['model']['cameras']}, {size}, {split}"


def protocol_sentences(result: ExperimentResult) -> Iterator[str]:
    """What all rows of a table share, in words."""
    about, protocol = result.about, result.about["protocol"]
    counts = about["counts"]
    trunks = [each for each in protocol["eval.lpips"].split("+") if each != "none"]
    yield (
        f"Scored on {counts['targets']} target views ({counts['images']} different images) in {counts['episodes']} "
        f"episodes of {counts['scenes']} scenes: masks {protocol['eval.masks']}, "
        f"{f'LPIPS by {listed(trunks)}' if trunks else 'no LPIPS'}."
    )
    if result.is_outside:
        return
    cameras = {"posed": "the contexts' cameras are given", "unposed": "no cameras of the contexts are given"}
    training, model = protocol["training"], protocol["model"]
    yield f"Track {model['cameras']}: {cameras[model['cameras']]}."
    yield (
        f"Trained on {training['dataset']} scenes ({training['category']}) at {training['resolution']} pixels, "
        f"{protocol['opt']['steps']} steps of {protocol['data.batch_size']}, on the geometry network "
        f"{about['geometry']['label']}."
    )
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("python", "torch"))
    yield f"Computed by the code `{about['code']}` with {versions}, and other packages as `experiment.json` has them."


def board_text(board: Board, place: int) -> str:
    first = board.table.results[0]
    facts = list(protocol_sentences(first))
    if board.apart:
        facts.append(f"Not comparable with table 1: {'; '.join(board.apart)}.")
    said = sentences(board.table)
    parts = [
        f"### Table {place}: {title_words(first)}",
        "\n".join(f"- {fact}" for fact in facts),
        markdown(*board_cells(board.table)),
        f"Brackets hold {level_words(board.table.confidence)}.",
    ]
    return "\n\n".join([*parts, "\n".join(f"- {sentence}" for sentence in said)] if said else parts)


def tables_text(reports: Path = REPORTS) -> str:
    """All tables as Markdown, from the records under a reports folder.

    raises ValueError when there are none
    """
    kept, unread = kept_results(reports / ARCHIVE.name)
    results = [*merge_seeds(kept), *outside(reports)]
    if not results:
        raise ValueError(
            f"{(reports / ARCHIVE.name).as_posix()} keeps no result; python -m src.compare --publish NAME=REV keeps one."
        )
    parts = [board_text(board, place) for place, board in enumerate(boards(results), 1)]
    return "\n\n".join([*parts, *(f"Left out: {error}" for error in unread)])


def renewed(page: str, tables: str) -> str:
    """The page with these tables between its marks.

    raises ValueError when a mark is missing or stands twice
    """
    if (
        page.count(TABLES_BEGIN) != 1
        or page.count(TABLES_END) != 1
        or page.index(TABLES_BEGIN) > page.index(TABLES_END)
    ):
        marks, name = f"{TABLES_BEGIN} and then {TABLES_END}", LEADERBOARD.as_posix()
        raise ValueError(f"{name} must hold {marks}, once each; git checkout {name}.")
    return f"{page.partition(TABLES_BEGIN)[0]}{TABLES_BEGIN}\n\n{tables}\n\n{TABLES_END}{page.partition(TABLES_END)[2]}"


def first_difference(found: str, wanted: str) -> str:
    """Number of the first line that differs, and what it is and should be."""
    lines = zip_longest(found.splitlines(), wanted.splitlines(), fillvalue="the end")
    place, (ours, theirs) = next((place, pair) for place, pair in enumerate(lines, 1) if pair[0] != pair[1])
    return f"line {place} is {ours!r} and should be {theirs!r}"


def main(check: bool) -> None:
    with mistakes_explained():
        if not LEADERBOARD.is_file():
            raise FileNotFoundError(f"There is no {LEADERBOARD.as_posix()}; run from the repository's top folder.")
        page = LEADERBOARD.read_text("utf8")
        wanted = renewed(page, tables_text())
        if not check:
            write_whole(LEADERBOARD, wanted.encode())
            print(f"Written: {LEADERBOARD.as_posix()}", file=sys.stderr)
        elif page != wanted:
            raise ValueError(
                f"{LEADERBOARD.as_posix()} is not what the records give: {first_difference(page, wanted)}; "
                "run python -m src.leaderboard and commit the page."
            )
        else:
            print(f"{LEADERBOARD.as_posix()} is what the records give.", file=sys.stderr)


if __name__ == "__main__":
    words = Words("leaderboard")
    words.add_argument("--check", action="store_true")
    main(words.parse_args().check)
