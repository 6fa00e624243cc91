"""Episodes: two context views of a scene, and held-out views of it to predict.

Evaluation episodes are chosen once and written down, by frame name, with the hash of the scene they belong to. Training
episodes are drawn while training, from generators named by seed and index, so workers and resuming change nothing.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Callable

import numpy as np

from src.episodes.bins import OVERLAP_BINS
from src.episodes.overlap import Covisibility, read_overlap
from src.reproducible.files import write_whole
from src.reproducible.seeds import numpy_generator
from src.scenes.scene import Scene, SceneRecord, read_index

GAP_BIN, TRAIN_BIN, LISTED_BIN = "gap", "train", "index"
IN_ORDER = ("gap", "index")  # selections that draw in capture order; `index` has its test episodes from a list
# scene units between the contexts of a listed episode; published scores leave shorter ones out
SHORTEST_BASELINE = 1e-3
SAME_OVERLAP = 1e-3  # by which an overlap written down may miss the measured one
BROKEN_LINE = json.JSONDecodeError, TypeError, KeyError  # what a line that is no episode raises


class EpisodeError(ValueError):
    """An episode that could flatter a model or no longer fits its scene."""


@dataclass(frozen=True)
class Episode:
    """contexts go in, targets are held out, both frame names of one scene; bin: of the contexts' overlap, `gap` for
    pairs chosen in capture order, `train` for training draws; overlap is None where `overlap_source` is gap; fallback:
    a training draw that had to take less overlap than asked for; repeated: contexts that an evaluation index lists as
    targets too, which published scores include and ours do not."""

    id: str
    scene: str
    contexts: tuple[str, str]
    targets: tuple[str, ...]
    bin: str
    overlap: float | None
    overlap_source: str
    scene_sha256: str
    fallback: bool
    category: str
    repeated: tuple[str, ...] = ()


def overlap_file(folder: str | Path, scene: str) -> Path:
    return Path(folder) / "overlaps" / f"{scene}.safetensors"


@dataclass(frozen=True, eq=False)
class SceneViews:
    """What choosing views needs to know of a scene: frame names, content hashes, frame numbers (V,), camera centres
    (V, 3), and who sees what."""

    record: SceneRecord
    names: tuple[str, ...]
    content: tuple[str, ...]
    frame_number: np.ndarray
    centres: np.ndarray
    overlap: Covisibility

    @classmethod
    def of(cls, record: SceneRecord, scene: Scene, overlap: Covisibility) -> "SceneViews":
        return cls(record, tuple(scene.names), tuple(scene.content), scene.frame_number, scene.c2w[:, :3, 3], overlap)

    @classmethod
    def read(cls, folder: str | Path, record: SceneRecord) -> "SceneViews":
        scene = Scene.open(Path(folder) / record.file)
        overlap = read_overlap(overlap_file(folder, record.id), scene.names, record.sha256)
        return cls.of(record, scene, overlap)

    @cached_property
    def same(self) -> np.ndarray:
        """(V, V) bool: two names, or one, of the same pixels."""
        content = np.array(self.content)
        return content[:, None] == content

    @cached_property
    def eligible(self) -> np.ndarray:
        """(V,) bool: the views that may take part; in a scene that goes by its depth, those that have enough of it."""
        return (self.overlap.usable > 0) | (self.overlap.source != "depth")

    @cached_property
    def pairable(self) -> np.ndarray:
        """(V, V) bool: different images from different places, so possible contexts of one episode."""
        apart = np.linalg.norm(self.centres[:, None] - self.centres, axis=-1) > 0
        return apart & ~self.same & self.eligible[:, None] & self.eligible

    def others(self, i: int, j: int) -> np.ndarray:
        """Positions of the views that may take part and show neither i's nor j's image."""
        return np.flatnonzero(~(self.same[i] | self.same[j]) & self.eligible)


def episode(
    views: SceneViews,
    contexts: tuple[int, int],
    targets: list[int],
    bin: str,
    id: str,
    overlap: float | None,
    fallback: bool = False,
) -> Episode:
    """An episode of view positions; targets are put in capture order."""
    return Episode(
        id,
        views.record.id,
        tuple(views.names[i] for i in contexts),
        tuple(views.names[i] for i in sorted(map(int, targets))),
        bin,
        overlap,
        "gap" if overlap is None else views.overlap.source,
        views.record.sha256,
        fallback,
        views.record.category,
    )


def gap_pairs(views: SceneViews, selection) -> tuple[list[tuple[int, int]], int]:
    """Positions (i, j), i before j, whose frame numbers differ by an allowed gap, with enough images strictly
    between; and how many pairs (i, gap) there are without such a partner."""
    position = {int(number): index for index, number in enumerate(views.frame_number)}
    gaps = range(selection.temporal_gap_min, selection.temporal_gap_max + 1)
    partners = [(i, position.get(number + gap)) for number, i in position.items() for gap in gaps]
    pairs = [
        (i, j)
        for i, j in partners
        if j is not None and views.pairable[i, j] and len(positions_between(views, i, j)) >= selection.num_targets
    ]
    return pairs, len(partners) - len(pairs)


def positions_between(views: SceneViews, i: int, j: int) -> np.ndarray:
    """Positions strictly between i and j in capture order that show neither's image."""
    others = views.others(i, j)
    return others[(others > i) & (others < j)]


def draw_gap(views: SceneViews, selection, rng: np.random.Generator, id: str) -> Episode:
    """One training draw of selection `gap`: first context and gap uniform, drawn again where the partner is missing
    (that is: uniform among the pairs there are); targets uniform among the images strictly between.

    raises    EpisodeError when the scene has no such pair
    """
    pairs, _ = gap_pairs(views, selection)
    if not pairs:
        raise EpisodeError(
            f"scene {views.record.id} has no two images {selection.temporal_gap_min} to "
            f"{selection.temporal_gap_max} frames apart with {selection.num_targets} between; change "
            "episodes.temporal_gap_min, temporal_gap_max or num_targets of its datasets block."
        )
    i, j = pairs[rng.integers(len(pairs))]
    targets = rng.choice(positions_between(views, i, j), selection.num_targets, replace=False)
    return episode(views, (i, j), targets, TRAIN_BIN, id, None)


def second_contexts(views: SceneViews, selection, first: int) -> tuple[np.ndarray, bool]:
    """Positions of the views that may join context `first`: those of enough overlap; where there are none, the one of
    most, and True for the fallback."""
    overlap, partners = shared_with(views, selection, first), np.flatnonzero(views.pairable[first])
    if len(wanted := partners[overlap[partners] > selection.alpha]):
        return wanted, False
    return partners[overlap[partners].argmax()][None], True


def held_out(views: SceneViews, selection, first: int, second: int) -> tuple[np.ndarray, bool]:
    """Positions of the views that the contexts cover well enough to be targets; where fewer than num_targets are, the
    num_targets best covered, and True for the fallback."""
    if selection.view_selection == "splatt3r":
        coverage = np.maximum(*(shared_with(views, selection, context) for context in (first, second)))
    else:
        coverage = views.overlap.union_coverage(first, second)
    others = views.others(first, second)
    if len(good := others[coverage[others] > selection.beta]) >= selection.num_targets:
        return good, False
    return others[np.argsort(-coverage[others], kind="stable")[: selection.num_targets]], True


def shared_with(views: SceneViews, selection, first: int) -> np.ndarray:
    """(V,) float64: how much each view shares with `first`; Splatt3R's own rule asks only what share of the other view
    is seen in `first`, not the reverse."""
    if selection.view_selection == "splatt3r":
        return views.overlap.coverage[:, first].astype(np.float64)
    return views.overlap.overlap[first]


def draw_coverage(views: SceneViews, selection, rng: np.random.Generator, id: str) -> Episode:
    """One training draw of selection `coverage` or `splatt3r`: c1 uniform, c2 uniform among views with ov(c1, c2) >
    alpha, targets uniform among the rest with cov({c1, c2} <- t) > beta; where there are too few, the best there are
    (`fallback`). `splatt3r` is the published sampling: one-sided shares, and of each target the better context's.

    raises    EpisodeError when the scene has too few images
    """
    eligible = np.flatnonzero(views.eligible)
    first = int(eligible[rng.integers(len(eligible))]) if len(eligible) else 0
    if not views.pairable[first].any() or len(eligible) < 2 + selection.num_targets:
        raise EpisodeError(
            f"scene {views.record.id} has {len(eligible)} usable images, too few from different "
            f"places for two contexts and episodes.num_targets {selection.num_targets}."
        )
    seconds, alone = second_contexts(views, selection, first)
    second = int(seconds[0] if alone else rng.choice(seconds))
    targets, uncovered = held_out(views, selection, first, second)
    if not uncovered:
        targets = rng.choice(targets, selection.num_targets, replace=False)
    return episode(
        views, (first, second), targets, TRAIN_BIN, id, float(views.overlap.overlap[first][second]), alone or uncovered
    )


def draw_training_episode(views: SceneViews, selection, rng: np.random.Generator, id: str = TRAIN_BIN) -> Episode:
    """One draw as `selection` (config.Episodes) says; by gap where the scene has no overlap to go by."""
    by_gap = selection.view_selection in IN_ORDER or views.overlap.source == "gap"
    return (draw_gap if by_gap else draw_coverage)(views, selection, rng, id)


def evaluation_episodes(views: SceneViews, selection) -> tuple[list[Episode], dict[str, int]]:
    """At most `per_bin` frozen episodes per bin of one scene, and the number of pairs each bin had to choose from.

    A pair belongs to the bin of ov(c1, c2); its targets are covered by at least the bin's lower edge; pairs with fewer
    than `num_targets` such views are passed over. The choice depends on the scene and the selection, not on any seed:
    runs with different seeds are compared on the same images.
    """
    if selection.view_selection in IN_ORDER or views.overlap.source == "gap":
        pairs, _ = gap_pairs(views, selection)
        return choose_bin(views, pairs, GAP_BIN, selection), {GAP_BIN: len(pairs)}
    overlap, chosen, available = views.overlap.overlap, [], {}
    allowed = np.triu(views.pairable, 1)
    for bin, (lowest, highest) in OVERLAP_BINS.items():
        inside = (overlap >= lowest) & ((overlap < highest) | (highest == 1.0)) & allowed
        pairs = [tuple(map(int, pair)) for pair in np.argwhere(inside)]
        chosen += choose_bin(views, pairs, bin, selection)
        available[bin] = len(pairs)
    return chosen, available


def listed_episode(
    views: SceneViews, contexts: tuple[str, ...], targets: tuple[str, ...], overlap: str | None
) -> tuple[Episode | None, str | None, int]:
    """The episode that an evaluation index lists of a scene, by frame name; or None and why it cannot be scored. Also
    how many of its targets are contexts; those that the scene lacks are left out.

    overlap    the index's own word for how much the contexts share, which the bin is called after
    """
    if len(contexts) != 2:
        return None, "not_two_contexts", 0
    if not set(contexts) <= set(views.names):
        return None, "context_unusable", 0
    first, second = map(views.names.index, contexts)
    if not np.linalg.norm(views.centres[first] - views.centres[second]) >= SHORTEST_BASELINE:
        return None, "short_baseline", 0
    held_out = views.others(first, second)
    known = {name: views.names.index(name) for name in targets if name in views.names}
    honest = [position for position in known.values() if position in held_out]
    repeated = tuple(name for name in known if name in contexts)
    if not honest:
        return None, "no_target", len(repeated)
    bin = f"{LISTED_BIN}_{overlap}" if overlap else LISTED_BIN
    found = episode(views, (first, second), honest, bin, f"{views.record.id}-{LISTED_BIN}", None)
    return replace(found, repeated=repeated), None, len(repeated)


def choose_bin(views: SceneViews, pairs: list[tuple[int, int]], bin: str, selection) -> list[Episode]:
    """Up to `per_bin` episodes from candidate pairs, in a fixed random order; in coverage bins, which of a pair comes
    first is random too."""
    rng = numpy_generator(0, "evaluation", views.record.id, bin)
    chosen = []
    for number in rng.permutation(len(pairs)):
        if len(chosen) == selection.per_bin:
            break
        i, j = pairs[number]
        if bin == GAP_BIN:
            candidates, overlap = positions_between(views, i, j), None
        else:
            i, j = (j, i) if rng.random() < 0.5 else (i, j)
            coverage, others = views.overlap.union_coverage(i, j), views.others(i, j)
            candidates, overlap = others[coverage[others] >= OVERLAP_BINS[bin][0]], float(views.overlap.overlap[i, j])
        if len(candidates) >= selection.num_targets:
            targets = rng.choice(candidates, selection.num_targets, replace=False)
            id = f"{views.record.id}-{bin}-{len(chosen)}"
            chosen.append(episode(views, (i, j), targets, bin, id, overlap))
    return chosen


def episode_faults(episode: Episode, views: SceneViews, split: str) -> list[str]:
    """Every rule that an episode breaks: contexts and targets are different images of its scene as it now is, the
    scene belongs to the split, and the contexts were taken from different places."""
    frames = (*episode.contexts, *episode.targets)
    unknown = [name for name in frames if name not in views.names]
    faults = {
        f"names scene {episode.scene}, not {views.record.id}": episode.scene != views.record.id,
        f"belongs to split {views.record.split}, not {split}": views.record.split != split,
        f"was chosen on another version of scene {episode.scene}": episode.scene_sha256 != views.record.sha256,
        f"names frames its scene has not: {', '.join(unknown)}": bool(unknown),
        "needs two contexts and at least one target": len(episode.contexts) != 2 or not episode.targets,
        "repeats a frame": len(set(frames)) < len(frames),
    }
    if not any(faults.values()):
        index = [views.names.index(name) for name in frames]
        contents = [views.content[i] for i in index]
        faults[f"repeats {', '.join(episode.repeated)}, no context of it"] = not set(episode.repeated) <= set(
            episode.contexts
        )
        faults["shows one image twice"] = len(set(contents)) < len(contents)
        faults["has both contexts in one place"] = not views.pairable[index[0], index[1]]
        faults |= overlap_faults(episode, views, index[0], index[1])
    return [fault for fault, present in faults.items() if present]


def overlap_faults(episode: Episode, views: SceneViews, first: int, second: int) -> dict[str, bool]:
    """Whether what an episode says of its contexts' overlap, and the bin it stands in, are what was measured."""
    told = episode.overlap
    if told is None:
        in_order = episode.bin in (GAP_BIN, TRAIN_BIN) or episode.bin.partition("_")[0] == LISTED_BIN
        return {f"stands in bin {episode.bin}, but says nothing of its overlap": not in_order}
    measured = float(views.overlap.overlap[first, second])
    lowest, highest = OVERLAP_BINS.get(episode.bin, (0.0, 1.0))
    inside = lowest <= measured and (measured < highest or highest == 1.0)
    known = episode.bin in OVERLAP_BINS or episode.bin == TRAIN_BIN
    return {
        f"says its contexts overlap by {told:.3f}, but they do by {measured:.3f}": not abs(told - measured)
        < SAME_OVERLAP,
        f"stands in bin {episode.bin}, but its contexts overlap by {measured:.3f}": not (known and inside),
        f"says its overlap was measured by {episode.overlap_source}, not by {views.overlap.source}": (
            episode.overlap_source != views.overlap.source
        ),
    }


def check_episode(episode: Episode, views: SceneViews, split: str) -> None:
    """raises EpisodeError for the first rule that an episode breaks"""
    for fault in episode_faults(episode, views, split):
        raise EpisodeError(f"episode {episode.id} {fault}; run dvc repro prepare.")


def file_of(folder: str | Path, split: str) -> Path:
    return Path(folder) / f"episodes_{split}.jsonl"


def write_episodes(
    folder: str | Path, split: str, episodes: list[Episode], views_of: Callable[[str], SceneViews]
) -> None:
    """episodes_<split>.jsonl, each episode checked against its scene, which `views_of` finds by id, first."""
    for item in episodes:
        check_episode(item, views_of(item.scene), split)
    lines = (json.dumps(asdict(item), sort_keys=True) + "\n" for item in episodes)
    write_whole(file_of(folder, split), "".join(lines).encode())


def episode_of(line: str) -> Episode:
    """raises one of BROKEN when a line is no episode"""
    row = json.loads(line)
    return Episode(**row | {key: tuple(row[key]) for key in ("contexts", "targets", "repeated") if key in row})


def read_episodes(folder: str | Path, split: str, category: str | None = None) -> list[Episode]:
    """The frozen episodes of a split, or of one category in it, each checked against its scene and the scene's file
    against its recorded hash.

    raises    FileNotFoundError; EpisodeError for an episode that breaks a rule, or when none is left
    """
    path = file_of(folder, split)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run dvc repro prepare.")
    try:
        episodes = list(map(episode_of, path.read_text(encoding="utf8").splitlines()))
    except BROKEN_LINE as error:
        raise EpisodeError(f"{path} is not a list of episodes ({error!r}); run dvc repro prepare.") from error
    kept = [item for item in episodes if category in (None, item.category)]
    if not kept:
        found = ", ".join(sorted({item.category for item in episodes})) or "none"
        raise EpisodeError(
            f"{path} holds no episode of category {category or 'any'} (there are: {found}); change "
            "train_category, test_category or episodes of the chosen datasets block."
        )
    records = {record.id: record for record in read_index(folder)}
    scenes = {}
    for item in kept:
        if item.scene not in records:
            raise EpisodeError(
                f"episode {item.id} names scene {item.scene}, which is not in the index; run dvc repro prepare."
            )
        if item.scene not in scenes:
            scenes[item.scene] = verified(folder, records[item.scene])
        check_episode(item, scenes[item.scene], split)
    return kept


def verified(folder: str | Path, record: SceneRecord) -> SceneViews:
    """A scene's views, its file's hash checked first."""
    Scene.open(Path(folder) / record.file, record.sha256)
    return SceneViews.read(folder, record)


class TrainingEpisodes:
    """Training draw number i: scene, contexts and targets depend on the seed and i alone.

    raises    EpisodeError when no training scene has the category
    """

    def __init__(self, folder: str | Path, selection, category: str | None, seed: int):
        self.folder, self.selection, self.seed = Path(folder), selection, seed
        self.records = [
            record for record in read_index(folder) if record.split == "train" and category in (None, record.category)
        ]
        if not self.records:
            raise EpisodeError(
                f"{folder} has no training scene{f' of category {category}' if category else ''}; change "
                "train_category of the chosen datasets block, or name captures in its source.train."
            )
        self.scene = lru_cache(maxsize=64)(lambda number: SceneViews.read(self.folder, self.records[number]))

    def __call__(self, index: int) -> Episode:
        rng = numpy_generator(self.seed, "train", index)
        views = self.scene(int(rng.integers(len(self.records))))
        drawn = draw_training_episode(views, self.selection, rng, f"{TRAIN_BIN}-{index}")
        check_episode(drawn, views, "train")
        return drawn
