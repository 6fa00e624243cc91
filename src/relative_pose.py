"""Relative pose of the two contexts from frozen features: matches, an essential matrix, angles. Nothing is trained.

    python -m src.relative_pose [key=value ...]

On the pairs of eval.split. reads data/scenes, data/features, data/weights/geometry; writes reports/relative_pose/table.csv
and table.md, and prints the table, which docs/relative_pose.md explains
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.compare import markdown
from src.config import Config, load_config
from src.episodes.episodes import Episode, read_episodes
from src.experiments.publish import interval_cells, scene_interval
from src.experiments.result import REPORTS
from src.geometry.cameras import relative_pose
from src.inference.cameras import fitted_pinhole, second_camera
from src.mast3r.network import Mast3r
from src.mast3r.weight_file import load_geometry
from src.matching.matches import centred, matched_pixels
from src.matching.pose import THRESHOLDS, direction_error, epipolar_pose, rotation_error, share_under_curve
from src.page.numbers import level_words, with_limits
from src.reproducible.files import fresh_folder
from src.reproducible.seeds import fix_computation
from src.reproducible.threads import in_threads
from src.results.statistics import Interval
from src.results.tables import Row, write_rows
from src.run import Words, mistakes_explained
from src.scenes.features import Features
from src.splatt3r.samples import Sample, Samples, collate

SCENES, FEATURES, WEIGHTS = Path("data/scenes"), Path("data/features"), Path("data/weights/geometry")
FAILED = 180.0  # degrees, of both angles where no pose was found
OFF_LINE = 0.5  # of a cell: how far a match may be off its epipolar line; at least a pixel
DESCRIPTOR_STRIDE = 8  # pixels of view 1 between descriptors that are matched

Poses = dict[
    tuple[str, str], np.ndarray | None
]  # (what, K) -> c2w (4, 4) of view 2 in view 1's frame; None where not found


@dataclass(frozen=True)
class PoseError:
    """In degrees."""

    rotation: float
    direction: float
    failed: bool

    @classmethod
    def of(cls, found: np.ndarray | None, true: np.ndarray) -> "PoseError":
        if found is None:
            return cls(FAILED, FAILED, True)
        return cls(rotation_error(found[:3, :3], true[:3, :3]), direction_error(found[:3, 3], true[:3, 3]), False)

    def share(self, threshold: float) -> float:
        return share_under_curve(max(self.rotation, self.direction), threshold)


def table_titles(confidence: float) -> dict[str, tuple[str, int]]:
    """Name of a column of the CSV -> its title in the Markdown table, and digits."""
    level = level_words(confidence)
    return {"rotation": (f"rotation (°) [{level}]", 1), "direction": (f"direction (°) [{level}]", 1)} | {
        f"auc_{threshold}": (f"AUC at {threshold}° [{level}]", 3) for threshold in THRESHOLDS
    }


def point_pose(points: Tensor, K: np.ndarray | None) -> np.ndarray | None:
    """By PnP on view 2's points (H, W, 3) in view 1's frame; None where they fit no camera."""
    try:
        return None if K is None else second_camera(points, K)
    except ValueError:
        return None


def fitted(points: Tensor) -> np.ndarray | None:
    """K (3, 3) that view 1's points (H, W, 3) fit; None where they lie behind it."""
    try:
        return fitted_pinhole(points)
    except ValueError:
        return None


def pair_poses(network: Mast3r, batch: Sample, label: str) -> Poses:
    """Every estimate of one pair, a batch of one; label: of the backbone."""
    contexts, grid = batch.contexts, network.grid(batch.contexts.images[:, 0])
    size, tokens = contexts.size, batch.tokens.float()
    lists = network.decode(tokens[:, 0], tokens[:, 1], grid, grid)
    first, second = (network.head(view, each, grid) for view, each in enumerate(lists, 1))
    # 1. What is matched, and how far its cells are apart.
    maps = {"encoder tokens": (centred(tokens[0].mT.unflatten(-1, grid)), 1)}
    if batch.features is not None:
        maps = {label: (centred(batch.features[0]), 1)} | maps
    if first.desc is not None and second.desc is not None:
        described = torch.stack([first.desc[0], second.desc[0]]).movedim(-1, 1)
        maps["MASt3R descriptors"] = described, DESCRIPTOR_STRIDE
    # 2. The pose, with the true K and with one that the points fit.
    guessed = fitted(first.pts3d[0])
    known = {"true": contexts.K[0].double().numpy(), "fitted": None if guessed is None else np.stack([guessed] * 2)}
    found: Poses = {("no motion", "–"): np.eye(4)}
    for name, (each, stride) in maps.items():
        pixels = None if each is None else matched_pixels(each, size, stride)
        for kind, K in known.items():
            if pixels is None or K is None:
                found[name, kind] = None
            else:
                tolerance = max(1.0, OFF_LINE * size[0] / each.shape[-1])
                found[name, kind] = epipolar_pose(pixels, K, tolerance)
    for kind, K in known.items():
        found["points (PnP)", kind] = point_pose(second.pts3d[0], None if K is None else K[1])
    return found


def table_rows(errors: dict[tuple[str, str], list[PoseError]], scenes: list[str], confidence: float) -> list[dict]:
    """Of each estimate: its name, Intervals of each column, and how often it failed."""

    def interval(values: list[float]) -> Interval:
        return scene_interval(values, scenes, confidence)

    return [
        {"what": what, "K": kind}
        | {angle: interval([getattr(each, angle) for each in found]) for angle in ("rotation", "direction")}
        | {f"auc_{limit}": interval([each.share(limit) for each in found]) for limit in THRESHOLDS}
        | {"failed": sum(each.failed for each in found), "pairs": len(found)}
        for (what, kind), found in errors.items()
    ]


def publish_poses(rows: list[dict], confidence: float) -> str:
    """Write reports/relative_pose; returns the table in Markdown."""
    titles = table_titles(confidence)
    head = ["matched", "K", *(title for title, _ in titles.values()), "failed", "pairs"]
    lines, records = [], []
    for row in rows:
        words = [with_limits(row[n].mean, row[n].low, row[n].high, digits) for n, (_, digits) in titles.items()]
        lines.append([row["what"], row["K"], *words, str(row["failed"]), str(row["pairs"])])
        record: Row = {"what": row["what"], "K": row["K"]}
        for name in titles:
            record |= interval_cells(name, row[name])
        records.append(record | {"failed": row["failed"], "pairs": row["pairs"]})
    text = markdown(head, lines)
    with fresh_folder(REPORTS / "relative_pose") as folder:
        write_rows(folder / "table.csv", records)
        (folder / "table.md").write_text(text + "\n", "utf8")
    return text


def pose_errors(config: Config, episodes: list[Episode]) -> dict[tuple[str, str], list[PoseError]]:
    """(what, K) -> an error for each pair, in order."""
    network, backbone = load_geometry(WEIGHTS), Features(FEATURES / "backbone", "features")
    samples = Samples(
        SCENES,
        Features(FEATURES / "geometry", "tokens"),
        backbone,
        config.dataset.resolution,
        lambda pair: replace(episodes[pair], targets=episodes[pair].contexts[:1]),  # nobody looks at the others
        len(episodes),
    )

    def errors(pair: int) -> dict[tuple[str, str], PoseError]:
        with torch.inference_mode():
            batch = collate([samples[pair]])
            c2w = batch.contexts.c2w[0].double()
            true = relative_pose(c2w[0], c2w[1]).numpy()
            found = pair_poses(network, batch, backbone.record["label"])
            return {name: PoseError.of(pose, true) for name, pose in found.items()}

    found: dict[tuple[str, str], list[PoseError]] = {}
    for each in in_threads(errors, range(len(episodes)), config.threads, "relative pose"):
        for name, error in each.items():
            found.setdefault(name, []).append(error)
    return found


def main(config: Config) -> None:
    fix_computation(1)  # of each of the threads that look at different pairs
    episodes = read_episodes(SCENES, config.eval.split, config.dataset.test_category)
    scenes, confidence = [episode.scene for episode in episodes], config.eval.confidence
    print(publish_poses(table_rows(pose_errors(config, episodes), scenes, confidence), confidence))
    print(f"Written: {(REPORTS / 'relative_pose').as_posix()}", file=sys.stderr)


if __name__ == "__main__":
    words = Words("relative_pose")
    words.overrides()
    with mistakes_explained():
        main(load_config(words.parse_args().overrides))
