"""Results of revisions and `dvc exp` experiments beside each other: a table, differences with intervals, trade-offs.

    python -m src.compare              the work tree, the kept experiments, its commit, and that commit's experiments
    python -m src.compare REV          a revision or experiment, and the work tree
    python -m src.compare REV REV ...  those alone
    python -m src.compare --across-code ...    results of other code or package versions too, said beside each number
    python -m src.compare --publish NAME=REV ...   keep results in reports/experiments (NAME= may be left out), then
                                                   compare the work tree and all that is kept there

reads reports/ of each through Git, without a checkout or a DVC remote; refuses what was measured in another way than
the first and says in what; writes reports/comparison: table.md, table.csv, comparison.json, *.svg, index.html
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from src.config import Config, load_config
from src.experiments.archive import ARCHIVE, check_name, keep_result
from src.experiments.comparisons import Verdicts, control_of, gather, judge, reference_of
from src.experiments.generalisation import SCENES_APART, Matrix, generalisation, training_words
from src.experiments.probed import Relation, added_by, relation, twins
from src.experiments.result import (
    METRIC,
    REPORTS,
    ExperimentResult,
    commit_of,
    comparable,
    merge_seeds,
    protocol_differences,
    read_folder,
    read_revision,
    reader_of,
)
from src.page import charts
from src.page.forest import forest_rows
from src.page.numbers import NOT_MEASURED, level_words, number, rank_words, with_limits
from src.page.probe_tables import compared_probes, relation_words, twin_words
from src.page.speed import bracketed, machine_differences
from src.page.templates import fill_template
from src.page.tradeoffs import COSTS, costs, pareto_charts, timed_alike
from src.page.verdict import CONTROL, cautions, difference_words
from src.reproducible.files import fresh_folder, write_json
from src.results.tables import METRIC_TITLES, images, select_rows, summarise_scenes, write_rows
from src.run import Words, mistakes_explained

COMPARISON = REPORTS / "comparison"
COMPUTED_BY = ("code", "versions")  # what --across-code lets differ
LIMITS = ("difference", "low", "high")
NUMBERS = ("mean", "std", "n", "images", "scenes", "seeds", *LIMITS, "p_holm", "rank_best", "rank_worst")


@dataclass(frozen=True)
class Table:
    """results: comparable ones; refused: name -> what differs; reference: what differences are taken from; verdicts: on
    differences from it and from constant features, if there; confidence: of the intervals; matrices: recipe -> trained on
    -> scored on; probed, twins, relation: see src/experiments/probed.py; notes: name -> what must be said beside its every
    number; elsewhere: name -> dataset of a result that was scored on another one than the first."""

    results: list[ExperimentResult]
    refused: dict[str, list[str]]
    reference: ExperimentResult
    verdicts: Verdicts
    confidence: float
    matrices: dict[str, Matrix]
    probed: dict[str, dict[str, dict]]
    twins: dict[tuple[str, str], dict[str, dict]]
    relation: Relation
    notes: dict[str, list[str]]
    elsewhere: dict[str, str]

    def title(self, name: str) -> str:
        """Name of a result, with what must be said beside its numbers."""
        return name + bracketed(self.notes[name])

    @property
    def costs_unlike(self) -> dict[str, list[str]]:
        """Name -> in what its costs were measured otherwise than the first ones."""
        return timed_alike(self.results)[1]


def named_results(words: list[str]) -> list[ExperimentResult]:
    """The results that the command line asks for.

    raises ValueError when a name is unknown or has no results, FileNotFoundError when the work tree has none
    """
    if not words:
        return gather(".")
    found = {word: read_revision(".", word, word) for word in words}
    check_found(found)
    if len(found) > 1:
        return merge_seeds(list(found.values()))
    if (current := read_folder(REPORTS, "this run")) is None:
        raise FileNotFoundError(
            f"{REPORTS} holds no results to compare {words[0]} with; run dvc repro, or name two revisions."
        )
    return [*found.values(), current]


def publish_results(words: list[str]) -> None:
    """Keep results in reports/experiments; words: NAME=REV, or a name that is both. Nothing is kept where one is wrong.

    raises    ValueError when nothing is named, or a revision is unknown or has no results
    """
    named = {name: rev or name for name, _, rev in (word.partition("=") for word in words)}
    commits = {name: commit_of(".", rev) for name, rev in named.items()}
    if not named:
        raise ValueError("--publish names nothing to keep; write revisions or experiments, or NAME=REV, behind it.")
    check_found({named[name]: commit and read_revision(".", commit, name) for name, commit in commits.items()})
    for name in named:
        check_name(name)
    for name, commit in commits.items():
        keep_result(ARCHIVE, name, reader_of(".", commit))


def check_found(found: dict[str, object]) -> None:
    """raises ValueError when a revision has no result"""
    if missing := [word for word, result in found.items() if result is None]:
        raise ValueError(
            f"{', '.join(missing)}: no such revision or experiment, or it has no results in {REPORTS}; "
            "`dvc exp show -A` lists the experiments."
        )


def tabulate(results: list[ExperimentResult], config: Config, across_code: bool = False) -> Table:
    """Paired differences from the MASt3R-only result, or from the first where there is none. What was trained on other
    scenes is a row without a verdict; so, across_code, are results of other code a row, with one."""
    first, free = results[0], COMPUTED_BY if across_code else ()
    apart = {each.name: protocol_differences(first, each, (*free, "training")) for each in results}
    here = first.about["protocol"].get("dataset")
    scored_on = {each.name: each.about["protocol"].get("dataset") for each in results if not each.is_outside}
    elsewhere = {
        each.name: scored_on[each.name]
        for each in results
        if scored_on.get(each.name, here) != here and not protocol_differences(first, each, (*free, *SCENES_APART))
    }
    refused = {name: words for name, words in apart.items() if words and name not in elsewhere}
    kept = [each for each in results if not apart[each.name]]
    alike = {each.name for each in comparable(kept, free)}
    reference = reference_of(kept, free) or first
    priors, confidence, control = config.dataset.seed_sd, config.eval.confidence, control_of(kept, free)
    trained_elsewhere = frozenset(each.name for each in kept if each.name not in alike)
    verdicts = judge(kept, reference, control, priors, confidence, tuple(METRIC_TITLES), trained_elsewhere)
    several = len({each.about["protocol"].get("training", {}).get("dataset") for each in kept}) > 1
    notes = {
        each.name: [f"trained on {training_words(each, several)}"] * bool(trained_elsewhere)
        + ["other code"] * bool(protocol_differences(first, each, ("training", "versions")))
        + ["other versions"] * bool(protocol_differences(first, each, ("training", "code")))
        for each in kept
    }
    return Table(
        results=kept,
        refused=refused,
        reference=reference,
        verdicts=verdicts,
        confidence=confidence,
        matrices=generalisation(results, confidence, free),
        probed=added_by(kept),
        twins=twins(kept),
        relation=relation([each for each in kept if each.name in alike], reference),
        notes=notes,
        elsewhere=elsewhere,
    )


def score_rows(table: Table) -> list[dict]:
    """A row per result and metric: mean and std over scenes, which weigh the same, n of targets (several seeds are
    averaged first), difference from the reference, its limits, p after Holm's correction, of the metric that ranks the
    best and worst rank left open among three or more, verdict. What was not measured has no numbers."""
    rows, ranked = [], table.verdicts.ranks
    for each in table.results:
        aligned = select_rows(each.rows, alignment="aligned")
        measured = summarise_scenes(aligned)
        for metric in METRIC_TITLES:
            row = {
                "run": each.name,
                "note": ", ".join(table.notes[each.name]),
                "backbone": each.label,
                "weights": each.about["backbone"]["weights"],
                "metric": metric,
            } | dict.fromkeys(NUMBERS)
            if metric in measured:
                row |= measured[metric] | {"images": images(aligned), "seeds": len(each.runs)}
            if compared := table.verdicts.differences[metric].get(each.name):
                interval = compared.interval
                row |= {
                    "difference": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "p_holm": compared.p_holm,
                }
            if metric == METRIC and each.name in ranked:
                row["rank_best"], row["rank_worst"] = ranked[each.name]
            itself = metric in measured and each is table.reference
            row["verdict"] = "reference" if itself else compared.verdict if compared else NOT_MEASURED
            rows.append(row)
    return rows


def mean_words(row: dict, digits: int) -> str:
    return NOT_MEASURED if row["mean"] is None else number(row["mean"], digits)


def difference_or_verdict(row: dict) -> str:
    """+0.04 [−0.09, +0.17]; the verdict in words where there is no difference."""
    return row["verdict"] if row["difference"] is None else with_limits(*(row[key] for key in LIMITS), sign=True)


def board(table: Table, rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """Head and cells: a row per result with masked scores, the PSNR's difference, and what the model costs, with
    words where that was measured otherwise than for the first."""
    head = [
        "Run",
        "Backbone",
        "PSNR",
        "SSIM",
        "LPIPS",
        f"PSNR - {table.title(table.reference.name)} [{level_words(table.confidence)}]",
        "Rank",
        "ms",
        "M parameters",
        "MB",
    ]
    cells, ranked, others = [], table.verdicts.ranks, table.costs_unlike
    for each in table.results:
        own = {row["metric"]: row for row in rows if row["run"] == each.name}
        price, note = costs(each), bracketed(others.get(each.name, []))
        cells.append(
            [
                table.title(each.name),
                " · ".join(filter(None, (each.label, each.detail))),
                mean_words(own["psnr_masked"], 2),
                mean_words(own["ssim_masked"], 3),
                mean_words(own["lpips_masked"], 3),
                difference_or_verdict(own[METRIC]),
                rank_words(ranked.get(each.name)) or "–",
                *(
                    f"{price[name]:.1f}{'' if name == 'parameters' else note}" if price else NOT_MEASURED
                    for name in COSTS
                ),
            ]
        )
    return head, cells


def markdown(head: list[str], cells: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def sentences(table: Table) -> list[str]:
    """What the table says, a sentence per result, and what a reader must know of it before quoting it."""
    compared = table.verdicts.differences[METRIC]
    names = {each.name: table.title(each.name) for each in table.results}
    words = [
        f"{names[each.name]}: {difference_words(each.label, table.reference.label, compared[each.name])}"
        for each in table.results
        if each.name in compared
    ]
    words += [
        f"{names[each.name]}: {difference_words(each.label, CONTROL, table.verdicts.controlled[each.name])}"
        for each in table.results
        if each.name in table.verdicts.controlled and each is not table.reference
    ]
    words += [twin_words(*names, found) for names, found in table.twins.items()]
    if table.relation.rho is not None:
        found = table.relation
        words.append(relation_words(found.rho, found.low, found.high, len(found.points)))
    words += [f"{each.name}: {caution}" for each in table.results for caution in cautions(each, compared=True)]
    first = table.results[0]
    for each in table.results[1:]:
        if found := protocol_differences(first, each, ("training",)):
            words.append(f"{each.name} was not computed as {first.name} was: {'; '.join(found)}.")
        if found := machine_differences(first, each):
            words.append(f"{each.name} was not computed on the machine of {first.name}: {'; '.join(found)}.")
    words += [
        f"{name} was scored on {dataset}: it stands in the table of trained on and scored on alone."
        for name, dataset in table.elsewhere.items()
    ]
    return words + [
        f"Refused: {name} was measured in another way: {'; '.join(found)}." for name, found in table.refused.items()
    ]


def title_of_gain(table: Table) -> str:
    return f"masked PSNR minus that of {table.title(table.reference.name)}"


def drawings(table: Table) -> dict[str, str]:
    """SVG by file name; only what can be drawn."""
    drawn, colours = {}, charts.colours_of(each.name for each in table.results)
    found = table.verdicts.differences[METRIC]
    if found:
        rows = forest_rows(table.results, table.reference, found, colours)
        title = f"{title_of_gain(table)} (dB)"
        drawn["forest"] = charts.forest_chart({table.title(name): row for name, row in rows.items()}, title, title)
    if table.relation.rho is not None:
        drawn["relation"] = charts.relation_chart(
            table.relation.points,
            colours,
            "dB that a readout of the features adds, untrained",
            f"{title_of_gain(table)} (dB)",
            "what the trained model gains over what a closed-form readout of the features adds",
        )
    return drawn | {f"pareto_{cost}": svg for cost, svg in pareto_charts(table.results, colours).items()}


def write(folder: Path, table: Table) -> str:
    """All files of a comparison; returns the table as markdown."""
    rows, drawn = score_rows(table), drawings(table)
    head, cells = board(table, rows)
    text, words = markdown(head, cells), sentences(table)
    (folder / "table.md").write_text("\n\n".join([text, *words]) + "\n", "utf8")
    write_rows(folder / "table.csv", rows)
    costs_of = {each.name: price for each in table.results if (price := costs(each))}
    write_json(
        folder / "comparison.json",
        {
            "reference": table.reference.name,
            "confidence": table.confidence,
            "rows": rows,
            "refused": table.refused,
            "generalisation": table.matrices,
            "probes": {
                "added": table.probed,
                "twins": {f"{first} - {second}": found for (first, second), found in table.twins.items()},
                "relation": asdict(table.relation),
            },
            "costs": costs_of,
            "costs_unlike": table.costs_unlike,
        },
    )
    for name, svg in drawn.items():
        (folder / f"{name}.svg").write_text(charts.standalone(svg), "utf8")
    page = fill_template(
        "compare.html",
        head=head,
        cells=cells,
        sentences=words,
        drawings=drawn,
        tables=further_tables(table),
    )
    (folder / "index.html").write_text(page, "utf8")
    return text


def further_tables(table: Table) -> list[tuple[str, str, list[str], list[list[str]]]]:
    """Title, words, head and rows of the tables beside the main one."""
    level, found = level_words(table.confidence), []
    if cells := compared_probes({table.title(name): each for name, each in table.probed.items()}):
        words = (
            "Closed-form readouts of tokens with features against tokens alone, without training or seed: logarithms of the "
            "ratio of squared errors (below 0 is better), dB of splatted points, shares of matched cells. 95 % intervals "
            "over scenes."
        )
        found.append(("What the features add to the geometry's tokens", words, *cells))
    for recipe, matrix in table.matrices.items():
        words = f"Masked PSNR in dB, {level} intervals over scenes, n targets in so many scenes."
        found.append((f"{recipe}: trained on (rows), scored on (columns)", words, *matrix_cells(matrix)))
    return found


def matrix_cells(matrix: Matrix) -> tuple[list[str], list[list[str]]]:
    """Head and rows of trained on x scored on: mean, interval, and of how many."""
    scored = list(dict.fromkeys(name for cells in matrix.values() for name in cells))
    rows = []
    for trained, cells in matrix.items():
        words = [NOT_MEASURED] * len(scored)
        for place, name in enumerate(scored):
            if cell := cells.get(name):
                words[place] = (
                    f"{with_limits(cell['mean'], cell['low'], cell['high'])}, n = {cell['n']} in {cell['scenes']}"
                )
        rows.append([trained, *words])
    return ["trained on", *(f"scored on {name}" for name in scored)], rows


def publish_comparison(results: list[ExperimentResult], config: Config, across_code: bool = False) -> Table:
    """Write reports/comparison; print the table, and beside it (stderr) what it says."""
    table = tabulate(results, config, across_code)
    with fresh_folder(COMPARISON) as folder:
        print(write(folder, table))
    print(*sentences(table), f"Written: {COMPARISON.as_posix()}", sep="\n", file=sys.stderr)
    return table


def main(revisions: list[str], publish: bool = False, across_code: bool = False) -> None:
    with mistakes_explained():
        config = load_config()
        if publish:
            publish_results(revisions)
        results = gather(".", kept_alone=True) if publish else named_results(revisions)
    table = publish_comparison(results, config, across_code)
    sys.exit(1 if table.refused and revisions else 0)


if __name__ == "__main__":
    words = Words("compare")
    words.add_argument("revisions", nargs="*", metavar="REV")
    words.add_argument("--publish", action="store_true")
    words.add_argument("--across-code", action="store_true")
    asked = words.parse_args()
    main(asked.revisions, asked.publish, asked.across_code)
