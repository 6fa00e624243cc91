"""Score renders of any method against this project's held-out views, with the same statistics.

    python -m src.score --export-protocol OUT    what a method is told: contexts, cameras, the pictures that are wanted
    python -m src.score FOLDER                   score its pictures; a row beside this run's
    python -m src.score FOLDER --against OTHER   score both; the first minus the second, paired by target
    python -m src.score --export-renders OUT     this run's own renders, as a method's pictures

reads data/scenes, data/weights/lpips_eval, the folders named (docs/score.md has their layout), and for the last
data/renders; writes reports/scored/<method>, which src.compare and the report's page show too
"""

import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from src.compare import board, markdown, score_rows, sentences, tabulate
from src.config import Config, load_config
from src.episodes.episodes import read_episodes
from src.evaluate import LPIPS, all_scores, finite
from src.experiments.protocol import scored_as
from src.experiments.result import REPORTS, ExperimentResult, read_folder
from src.metrics.perceptual import Perceptual
from src.metrics.points import DEPTH_SCORES
from src.render import about_episode, bins
from src.renders.episode_file import Rendered
from src.reproducible.files import read_json
from src.reproducible.hashes import file_hash
from src.reproducible.seeds import fix_computation
from src.reproducible.threads import in_threads
from src.results.tables import ALIGNMENTS, Row
from src.run import Words, mistakes_explained
from src.scenes.scene import Scene, View, all_in_metres, read_index
from src.splatt3r.prediction import target_mask
from src.splatt3r.samples import Sample, Views, collate
from src.submissions.layout import Method, Protocol, Submission, write_protocol, write_submission
from src.submissions.record import folder_of, publish_scores

SCENES, RENDERS = Path("data/scenes"), Path("data/renders")
OPEN_SCENES = 32


@lru_cache(OPEN_SCENES)
def open_scene(name: str) -> Scene:
    return Scene.open(SCENES / "scenes" / f"{name}.safetensors")


def protocol_of(config: Config) -> Protocol:
    """The scored episodes of this configuration, at its resolution."""
    episodes = read_episodes(SCENES, config.eval.split, config.dataset.test_category)
    told = [about_episode(*each) for each in zip(episodes, bins(episodes))]
    return Protocol(told, tuple(config.dataset.resolution), file_hash(SCENES / "index.jsonl"))


def visible_pixels(contexts: list[View], targets: list[View], in_metres: bool, masks: str) -> Tensor:
    """(T, H, W) bool: the masks that the stage render writes."""
    unused = torch.zeros(2, 1, 1)  # tokens: no network is asked
    batch = collate([Sample(Views.of(contexts), Views.of(targets), unused, None)])
    return target_mask(batch, in_metres, masks)[0]


def episode_scores(
    submission: Submission, about: dict, perceptual: Perceptual, in_metres: bool, masks: str
) -> list[Row]:
    """A row per target and alignment, with the columns of an experiment's renders; depth is not asked of a method."""
    scene, size = open_scene(about["scene"]), submission.resolution
    contexts, targets = ([scene.view(name, size) for name in about[key]] for key in ("contexts", "targets"))
    seen = visible_pixels(contexts, targets, in_metres, masks)
    shown = {name: submission.pictures(name, about["episode"], about["targets"]) for name in submission.alignments}
    named, rows = {name: about[name] for name in ("episode", "scene", "category", "bin")}, []
    for number, (view, mask) in enumerate(zip(targets, seen)):
        pictures = {alignment: each[number] for alignment, each in shown.items()}
        pairs = {("render", alignment): alignment for alignment in pictures}
        distances = perceptual.scores(pictures, pairs, view.image, mask, (about["scene"], view.name))
        for alignment, picture in pictures.items():
            rows.append(
                named
                | {"target": view.name, "method": "render", "alignment": alignment}
                | all_scores(picture, view.image, mask, perceptual.published)
                | distances["render", alignment]
                | dict.fromkeys(DEPTH_SCORES)
            )
    return rows


def score_folder(folder: Path, protocol: Protocol, config: Config) -> ExperimentResult:
    """Score a folder of renders, and publish that under reports/scored.

    raises ValueError, FileNotFoundError when the folder is not what it should be; nothing is written then
    """
    submission = Submission(folder, protocol)
    folder_of(submission.method)
    perceptual = Perceptual.load(config.eval.lpips, config.eval.lpips_rows, LPIPS)
    in_metres = all_in_metres(read_index(SCENES))

    def scored(about: dict) -> list[Row]:
        return episode_scores(submission, about, perceptual, in_metres, config.eval.masks)

    tables = in_threads(scored, protocol.episodes, config.threads, f"score {submission.method.method}")
    rows, _ = finite([row for table in tables for row in table])
    return publish_scores(submission.method, scored_as(config, protocol.resolution), rows)


def own_pictures(protocol: Protocol) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    """(alignment, episode, target -> render) of this run.

    raises FileNotFoundError, ValueError when data/renders does not hold the protocol's episodes
    """
    for about in protocol.episodes:
        path = RENDERS / f"{about['episode']}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; run dvc repro render.")
        rendered = Rendered.read(path)
        if rendered.about["targets"] != about["targets"] or rendered.resolution != protocol.resolution:
            raise ValueError(f"{path} is of other targets or another resolution; run dvc repro render.")
        for alignment in ALIGNMENTS:
            images = rendered.tensors[rendered.tensor_name("render", alignment)]
            yield alignment, about["episode"], dict(zip(about["targets"], images))


def own_method(hardware: str = "not measured") -> Method:
    """What this run declares of itself."""
    record = read_json(Path("data/model/record.json"))
    licences = dict.fromkeys(record[part]["licence"] for part in ("geometry", "backbone"))
    return Method(f"Backsplat, {record['backbone']['label']}", ", ".join(filter(None, licences)), hardware)


def show(results: list[ExperimentResult], config: Config) -> bool:
    """Print the results beside the first one; whether all could be compared with it."""
    table = tabulate(results, config)
    print(markdown(*board(table, score_rows(table))))
    print(*sentences(table), sep="\n", file=sys.stderr)
    return not table.refused


def main(folder: str | None, against: str | None, protocol_to: str | None, renders_to: str | None) -> None:
    with mistakes_explained():
        config = load_config()
        fix_computation(1)  # of each of the threads that score different episodes
        protocol = protocol_of(config)
        if protocol_to:
            size = protocol.resolution
            write_protocol(Path(protocol_to), protocol, lambda scene, name: open_scene(scene).view(name, size))
            print(f"Written: {protocol_to}, {len(protocol.episodes)} episodes of protocol {protocol.name}")
        if renders_to:
            write_submission(Path(renders_to), protocol, own_method(), own_pictures(protocol))
            print(f"Written: {renders_to}, this run's renders")
        if folder is None:
            return
        scored = [score_folder(Path(each), protocol, config) for each in (against, folder) if each]
        current = None if against else read_folder(REPORTS, "this run")
        alike = show([current, *scored] if current else scored, config)
        print(*(f"Written: {REPORTS.as_posix()}/scored/{each.name}" for each in scored), sep="\n", file=sys.stderr)
    sys.exit(0 if alike else 1)


if __name__ == "__main__":
    words = Words("score")
    words.add_argument("folder", nargs="?", metavar="FOLDER")
    words.add_argument("--against", metavar="OTHER")
    words.add_argument("--export-protocol", metavar="OUT")
    words.add_argument("--export-renders", metavar="OUT")
    asked = words.parse_args()
    if asked.folder is None and (asked.against or not (asked.export_protocol or asked.export_renders)):
        words.error("name a FOLDER of renders, or --export-protocol OUT or --export-renders OUT")
    main(asked.folder, asked.against, asked.export_protocol, asked.export_renders)
