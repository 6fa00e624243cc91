"""Stage `probe`: what the frozen features know and add, read out in closed form; and the readout that corrects depth.

    python -m src.probe [key=value ...]

reads data/scenes, data/features, data/weights/geometry; writes data/probe (see src/probes/results.py) and
data/readout.safetensors. No seed enters: the training pairs are the same in every run.
"""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from src.config import Config
from src.episodes.episodes import Episode, TrainingEpisodes, read_episodes
from src.geometry.alignment import camera_in_prediction
from src.geometry.cameras import transform, unproject
from src.geometry.visibility import depth_tolerance
from src.mast3r.attention import Grid
from src.mast3r.network import Mast3r
from src.mast3r.weight_file import load_geometry
from src.metrics.image import psnr
from src.probes.compared import added
from src.probes.correspondence import epipolar_matches, matches
from src.probes.pair import READ_TARGETS, Looked, look, pair_rows, untorn
from src.probes.regression import Moments, Solution, fit_ridge, principal_axes
from src.probes.results import write_probe
from src.probes.scores import ProbeScores
from src.renders.baselines import points_as_gaussians
from src.reproducible.seeds import fix_computation
from src.reproducible.threads import in_threads
from src.results.tables import BINS
from src.run import run
from src.scenes.features import Features
from src.scenes.scene import all_in_metres, read_index
from src.splatt3r.posed import OwnViews, own_views
from src.splatt3r.prediction import render_targets, target_mask
from src.splatt3r.readout import CELLS, CORRECTED, corrected_depth, write_solutions
from src.splatt3r.samples import Sample, Samples, collate

SCENES, FEATURES, WEIGHTS = Path("data/scenes"), Path("data/features"), Path("data/weights/geometry")
PROBE, READOUT = Path("data/probe"), Path("data/readout.safetensors")
READ = {  # inputs of the readouts; the correction also sees the depth that it corrects
    "position": ("places",),
    "features": ("places", "features"),
    "tokens": ("places", "encoded", "decoded"),
    "both": ("places", "encoded", "decoded", "features"),
    "features_pca": ("places", "components"),
    "both_pca": ("places", "encoded", "decoded", "components"),
}


class ProbedPairs:
    """Pairs of context views by number, as the frozen geometry network sees them."""

    def __init__(self, config: Config, network: Mast3r, episodes: list[Episode]):
        features = Features(FEATURES / "geometry", "tokens"), Features(FEATURES / "backbone", "features")
        size = tuple(config.dataset.resolution)
        self.network, self.episodes = network, episodes
        self.samples = Samples(SCENES, *features, size, episodes.__getitem__, len(episodes))

    def batch(self, number: int) -> Sample:
        """A batch of one."""
        return collate([self.samples[number]])

    def rows(self, number: int) -> dict[str, Tensor] | None:
        """Of the patches with enough depth; None where a pair has no depth."""
        with torch.inference_mode():
            batch = self.batch(number)
            if not (batch.contexts.depth > 0).any():
                return None
            rows, counts = pair_rows(look(self.network, batch), batch, self.grid(batch))
            return {name: values[counts] for name, values in rows.items()}

    def views(self, batch: Sample) -> OwnViews:
        """Each view as the first of its pair."""
        return own_views(self.network, *batch.tokens.float().unbind(1), self.grid(batch))

    def grid(self, batch: Sample) -> Grid:
        return self.network.grid(batch.contexts.images[:, 0])


def without_targets(episodes: list[Episode]) -> list[Episode]:
    """The same contexts; their targets, which nobody will look at, need not be decoded."""
    return [replace(episode, targets=episode.contexts[:1]) for episode in episodes]


def moments(pairs: ProbedPairs, threads: int, what: str) -> tuple[Moments, Moments]:
    """Of all patches, and of those that a correction is learned from."""
    everything, whole, numbers = Moments(), Moments(), range(len(pairs.episodes))
    for rows in in_threads(pairs.rows, numbers, threads, f"probe {what}"):
        if rows is not None:
            everything.add(rows)
            whole.add(untorn(rows))
    return everything, whole


def with_components(moments: tuple[Moments, Moments], axes: Tensor | None) -> tuple[Moments, Moments]:
    """With the features' principal components among the columns."""
    return moments if axes is None else tuple(each.projected("features", axes, "components") for each in moments)


def solutions(
    training: tuple[Moments, Moments], validation: tuple[Moments, Moments]
) -> dict[tuple[str, str], Solution]:
    """(target, inputs) -> readout; without features those that need none, without a patch seen in its place none that
    corrects depth."""
    kinds = [kind for kind, names in READ.items() if set(names) <= training[0].slices.keys()]
    found = {
        (target, kind): fit_ridge(training[0], validation[0], READ[kind], target)
        for target in READ_TARGETS
        for kind in kinds
        if target != "correction"
    }
    in_place = training[1].count and validation[1].count
    for kind in {"tokens", "both"} & set(kinds) if in_place else ():
        names = [name for name in CORRECTED if kind == "both" or name != "features"]
        found["correction", kind] = fit_ridge(training[1], validation[1], names, "correction")
    return dict(sorted(found.items()))


def feature_maps(views: OwnViews, batch: Sample, grid: Grid) -> dict[str, Tensor]:
    """inputs -> (2, C, gh, gw)"""
    tokens = {"tokens": views.tokens[0].mT.unflatten(-1, grid)}
    return tokens if batch.features is None else tokens | {"features": batch.features[0]}


def splatted(looked: Looked, depth: Tensor, batch: Sample, masks: Tensor) -> list[float]:
    """Masked PSNR of each target with a visible pixel, of both views' points at `depth` (2, H, W), splatted untrained."""
    contexts, scale = batch.contexts, looked.scale[0]
    relative = camera_in_prediction(contexts.c2w[0, 0], contexts.c2w[0], scale)  # (2, 4, 4)
    points = transform(relative, unproject(depth, contexts.K[0])).reshape(-1, 3)
    colours = contexts.images[0].permute(0, 2, 3, 1).reshape(-1, 3)
    gaussians = points_as_gaussians(points, colours, contexts.K[0, 0, 0, 0])
    shown = render_targets(gaussians, batch, 0, scale).images
    return [
        psnr(picture, truth, mask) for picture, truth, mask in zip(shown, batch.targets.images[0], masks) if mask.any()
    ]


def test_pair(
    pairs: ProbedPairs,
    number: int,
    readouts: dict[tuple[str, str], Solution],
    axes: Tensor | None,
    masks: str,
    in_metres: bool,
) -> tuple[ProbeScores, bool]:
    """Scores of one test pair, and whether it had depth. axes: of the features' principal components."""
    found, episode, batch = ProbeScores(), pairs.episodes[number], pairs.batch(number)
    grid, contexts = pairs.grid(batch), batch.contexts
    if not (contexts.depth > 0).any():
        for kind, each in feature_maps(pairs.views(batch), batch, grid).items():
            if (matched := epipolar_matches(each, contexts.size, contexts.K[0], contexts.c2w[0])) is not None:
                found.add_matches("line", episode.scene, episode.bin, kind, matched)
        return found, False
    looked = look(pairs.network, batch)
    rows, counts = pair_rows(looked, batch, grid)
    if axes is not None:
        rows["components"] = rows["features"].double() @ axes
    kept = {name: values[counts] for name, values in rows.items()}
    # 1. Readouts, patch by patch.
    scored = {target: untorn(kept) if target == "correction" else kept for target in READ_TARGETS}
    for target in READ_TARGETS:
        found.add_truth(target, scored[target][target].double())
    for (target, kind), readout in readouts.items():
        truth = scored[target][target].double()
        found.add_errors(episode.scene, target, kind, readout(scored[target]), truth)
    # 2. The correction moves points along their rays, which are then splatted.
    seen = target_mask(batch, in_metres, masks)[0]
    found.psnr[episode.scene, "swept"] += splatted(looked, looked.swept[0], batch, seen)
    for kind in ("tokens", "both"):
        if ("correction", kind) in readouts:
            correction = readouts["correction", kind](rows).float().mT.reshape(CELLS**2, 2, *grid)
            cells = torch.nn.functional.pixel_shuffle(correction.transpose(0, 1), CELLS)[:, 0]
            found.psnr[episode.scene, kind] += splatted(looked, corrected_depth(looked.swept[0], cells), batch, seen)
    # 3. Correspondence between the two views.
    places = contexts.depth[0], contexts.K[0], contexts.c2w[0], *depth_tolerance(in_metres)
    for kind, each in feature_maps(looked.views, batch, grid).items():
        if (matched := matches(each, *places)) is not None:
            found.add_matches("pck", episode.scene, episode.bin, kind, matched)
    return found, True


def match_shares(scores: ProbeScores, place: str) -> dict[str, dict]:
    """inputs -> overlap bin, or all -> shares"""
    found = {}
    for kind in sorted({kind for p, _, _, kind in scores.matches if p == place}):
        if (everywhere := scores.share(place, kind)) is not None:
            by_bin = {b: shares for b in BINS if (shares := scores.share(place, kind, b))}
            found[kind] = {"all": everywhere} | by_bin
    return found


def probe_summary(
    scores: ProbeScores, readouts: dict[tuple[str, str], Solution], about: dict, absent: dict[str, str]
) -> dict:
    rows = scores.rows()
    tables = {
        "readouts": {
            target: {
                kind: scores.explained(target, kind) | {"penalty": readout.penalty}
                for (t, kind), readout in readouts.items()
                if t == target
            }
            for target in READ_TARGETS
            if any(t == target for t, _ in readouts)
        },
        "correspondence": match_shares(scores, "pck"),
        "epipolar": match_shares(scores, "line"),
        "added": added(rows),
    }
    return about | tables | {"absent": absent}


def learned(config: Config, network: Mast3r) -> tuple[dict[tuple[str, str], Solution], Tensor | None]:
    """Readouts of training pairs, as `solutions`, and the axes of the features' principal components; neither where no
    training pair or no validation pair has depth."""
    threads, dataset = config.threads, config.dataset
    draw = TrainingEpisodes(SCENES, dataset.episodes, dataset.train_category, 0)
    drawn = [draw(number) for number in range(config.probe.pairs)]
    training = moments(ProbedPairs(config, network, without_targets(drawn)), threads, "training pairs")
    held_out = read_episodes(SCENES, "val", dataset.train_category)
    validation = moments(ProbedPairs(config, network, without_targets(held_out)), threads, "validation pairs")
    if training[1].products is None or validation[1].products is None:
        return {}, None
    with torch.inference_mode():
        asked = config.probe.pca and "features" in training[0].slices
        axes = principal_axes(training[0], "features", config.probe.pca) if asked else None
        return solutions(with_components(training, axes), with_components(validation, axes)), axes


def unknowns(
    readouts: dict[tuple[str, str], Solution], scores: ProbeScores, blind: int, channels: int
) -> dict[str, str]:
    """What cannot be told, and why. blind: how many test pairs had no depth; channels: of the features."""
    absent = {}
    if not readouts:
        absent["Readouts"] = "the training or validation images have no depth to learn one from"
    elif ("correction", "tokens") not in readouts:
        absent["What corrects the geometry's depth"] = (
            "no training patch, or no validation patch, was predicted near its true place, so depth is left as it is"
        )
    if blind:
        absent[f"Readouts and places of {blind} pairs"] = (
            "their images have no depth, so their matches are held against epipolar lines"
        )
    if channels and not any(kind == "features" for *_, kind in scores.matches):
        absent["Correspondence by the features"] = "they are the same everywhere"
    return absent


def main(config: Config) -> None:
    fix_computation(1)  # of each of the threads below
    network, in_metres = load_geometry(WEIGHTS), all_in_metres(read_index(SCENES))
    readouts, axes = learned(config, network)
    episodes = read_episodes(SCENES, config.eval.split, config.dataset.test_category)
    pairs, scores, blind = ProbedPairs(config, network, episodes), ProbeScores(), 0

    def probed(number: int) -> tuple[ProbeScores, bool]:
        with torch.inference_mode():
            return test_pair(pairs, number, readouts, axes, config.eval.masks, in_metres)

    for found, with_depth in in_threads(probed, range(len(episodes)), config.threads, "probe test pairs"):
        scores.add(found)
        blind += not with_depth
    record = Features(FEATURES / "backbone", "features").record
    about = {"backbone": record["label"], "weights": record["weights"]} | asdict(config.probe)
    absent = unknowns(readouts, scores, blind, record["channels"])
    solved = {kind: readout.tensors for (target, kind), readout in readouts.items() if target == "correction"}
    write_solutions(READOUT, solved)
    write_probe(PROBE, probe_summary(scores, readouts, about, absent), scores.rows())


if __name__ == "__main__":
    run(main, "probe")
