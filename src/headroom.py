"""Where quality is lost before anything is trained: the frozen points' scores, with one thing after another made true.

    python -m src.headroom [key=value ...]

Points of both contexts are splatted as they are and compared with the target views of eval.split, row by row of the table
in docs/headroom.md. reads data/scenes, data/features, data/weights/geometry; writes reports/headroom/table.csv, table.md
and chart.svg, and prints the table
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.compare import markdown
from src.config import Config, load_config
from src.episodes.episodes import Episode, read_episodes
from src.experiments.publish import interval_cells, scene_interval
from src.experiments.result import METRIC, REPORTS
from src.geometry.alignment import camera_in_prediction, context_points, scale_factor
from src.geometry.cameras import invert_se3, transform, unproject
from src.geometry.surface import cell_medians
from src.inference.cameras import fitted_pinhole, second_camera
from src.mast3r.attention import Grid
from src.mast3r.network import Mast3r
from src.mast3r.weight_file import load_geometry
from src.metrics.image import psnr
from src.page.charts import Difference, forest_chart, standalone
from src.page.numbers import level_words, number, with_limits
from src.probes.pair import look
from src.renders.baselines import points_as_gaussians
from src.reproducible.files import fresh_folder
from src.reproducible.seeds import fix_computation, torch_generator
from src.reproducible.threads import in_threads
from src.results.statistics import Interval
from src.results.tables import Row, write_rows
from src.run import Words, mistakes_explained
from src.scenes.features import Features
from src.scenes.scene import all_in_metres, read_index
from src.splatt3r.posed import LEAST_DEPTH, in_first_frame
from src.splatt3r.prediction import render_targets, target_mask
from src.splatt3r.readout import CELLS, cell_log_depth, corrected_depth
from src.splatt3r.samples import Sample, Samples, collate

SCENES, FEATURES, WEIGHTS = Path("data/scenes"), Path("data/features"), Path("data/weights/geometry")
AS_PREDICTED = "as predicted"  # what the other rows are compared with
NOISES = (0.05, 0.02, 0.0)  # standard deviations of the logarithm of depth

Maps = dict[str, Tensor | None]  # name of a row -> something per pixel of both views; None where it can not be had


@dataclass(frozen=True)
class Score:
    """Of one pair and row.

    errors  median over a view's pixels of known depth of |point - true point| / |true point|, of views 1 and 2; None of a
            view without depth
    psnr    masked, of each target with a visible pixel
    """

    errors: tuple[float | None, float | None]
    psnr: list[float]


RowScores = dict[int, Score]  # of one row, by the number of the pair


@dataclass(frozen=True)
class Summary:
    """A row of the table: means over scenes. errors: of views 1 and 2; over: the difference to AS_PREDICTED, paired by
    target, None of that row itself; pairs: how many the row could be had of."""

    errors: tuple[Interval | None, Interval | None]
    psnr: Interval | None
    over: Interval | None
    pairs: int


def points_without_cameras(points: Tensor, truth: Tensor) -> Maps:
    """Points (2, H, W, 3) of both views in view 1's frame where nobody tells the cameras; truth (2, H, W, 3), in the units
    of points."""
    near, far = (each.norm(dim=-1, keepdim=True).clamp_min(1e-9) for each in (points, truth))
    return {
        AS_PREDICTED: points,
        "true distances": points * (far / near),
        "true directions": truth * (near / far),
        "view 1 true": torch.stack([truth[0], points[1]]),
        "view 2 true": torch.stack([points[0], truth[1]]),
        "all true": truth,
    }


def placed_points(depth: Tensor, K: Tensor, relative: Tensor) -> Tensor:
    """Points (2, H, W, 3) in view 1's frame of depth (2, H, W) in the views' own cameras; K (2, 3, 3), relative (4, 4)."""
    return in_first_frame(unproject(depth, K)[None], relative[None])[0]


def on_rays(points: Tensor, K: Tensor) -> tuple[Tensor, Tensor] | None:
    """Depth (2, H, W) of points (2, H, W, 3), each view's in a camera of its own, and c2w (4, 4) of the second one in the
    first one's frame: the one that its points fit (PnP). None where they fit none."""
    try:
        camera = second_camera(points[1], K[1].double().numpy())
    except ValueError:
        return None
    relative = torch.from_numpy(camera).to(points)
    own = torch.stack([points[0], transform(invert_se3(relative), points[1])])
    return own[..., 2].clamp_min(LEAST_DEPTH), relative


def fitted_intrinsics(points: Tensor) -> Tensor | None:
    """K (2, 3, 3), alike for both views, of the focal length that view 1's points (2, H, W, 3) have; None where they lie
    behind it."""
    try:
        K = fitted_pinhole(points[0])
    except ValueError:
        return None
    return torch.from_numpy(K).to(points).expand(2, 3, 3)


def pnp_points(points: Tensor, K: Tensor, true_depth: Tensor) -> Maps:
    """Points (2, H, W, 3) of both views put on the rays of a camera each, where only K (2, 3, 3), or nothing, is told;
    true_depth (2, H, W), in the units of points, 0 = unknown."""
    fitted, known = fitted_intrinsics(points), on_rays(points, K)
    guessed = None if fitted is None else on_rays(points, fitted)
    return {
        "PnP with fitted K": None if guessed is None else placed_points(guessed[0], fitted, guessed[1]),
        "PnP with true K": None if known is None else placed_points(known[0], K, known[1]),
        "PnP with true K and depth": None
        if known is None
        else placed_points(true_depth.where(true_depth > 0, known[0]), K, known[1]),
    }


def times_cells(depth: Tensor, true_depth: Tensor, rows: int, columns: int) -> Tensor:
    """Depth (2, H, W) times one factor per cell, with which its median is the true one; unchanged where that is unknown."""
    factor = cell_medians(true_depth, rows, columns) / cell_medians(depth, rows, columns)
    side = depth.shape[1] // rows, depth.shape[2] // columns
    return depth * factor.nan_to_num(1).repeat_interleave(side[0], 1).repeat_interleave(side[1], 2)


def posed_depths(
    predicted: Tensor, swept: Tensor, true_depth: Tensor, grid: Grid, generator: torch.Generator
) -> dict[str, Tensor]:
    """Depths (2, H, W) in the views' own cameras, where K and relative pose are told; true_depth as of `pnp_points`."""
    cells = CELLS * grid[0], CELLS * grid[1]
    correction = (cell_log_depth(true_depth, grid) - cell_log_depth(swept, grid)).nan_to_num(0)
    depths = {
        "posed": predicted,
        "posed, views compared": swept,
        "posed, patches true": times_cells(swept, true_depth, *grid),
        "posed, 4×4 cells true": times_cells(swept, true_depth, *cells),
        "posed, cells interpolated": corrected_depth(swept, correction),
    }
    noise = torch.randn(true_depth.shape, generator=generator)
    for sd in NOISES:
        noisy = true_depth * (sd * noise).exp()
        depths[f"posed, true with {100 * sd:g} % noise"] = noisy.where(true_depth > 0, swept)
    return depths


def pair_scores(network: Mast3r, batch: Sample, masks: Tensor, generator: torch.Generator) -> dict[str, Score | None]:
    """The table's rows of one pair with depth, a batch of one; masks (T, H, W) of its targets. Pixels without true depth
    stay where they were predicted."""
    contexts, grid = batch.contexts, network.grid(batch.contexts.images[:, 0])
    depth, K, c2w = contexts.depth[0], contexts.K[0], contexts.c2w[0]
    known, looked = depth > 0, look(network, batch)
    # 1. Without cameras, in the units that all distances of the pair have.
    points, truth = looked.points[0], context_points(depth, K, c2w)
    scale = scale_factor(points, truth, known)
    unposed = points_without_cameras(points, (truth * scale).where(known[..., None], points))
    unposed |= pnp_points(points, K, depth * scale)
    # 2. With cameras, in the units that the depths of the pair have in each view's own camera.
    own_scale = looked.scale[0]
    relative = camera_in_prediction(c2w[0], c2w, own_scale)[1]
    depths = posed_depths(looked.views.depth[0], looked.swept[0], depth * own_scale, grid, generator)
    posed = {name: placed_points(each, K, relative) for name, each in depths.items()}
    return {
        name: None if placed is None else score_points(placed, unit, batch, masks)
        for rows, unit in ((unposed, scale), (posed, own_scale))
        for name, placed in rows.items()
    }


def score_points(points: Tensor, scale: Tensor, batch: Sample, masks: Tensor) -> Score:
    """Of points (2, H, W, 3) in view 1's frame, `scale` times as large as the true ones."""
    contexts = batch.contexts
    truth = context_points(contexts.depth[0], contexts.K[0], contexts.c2w[0]) * scale
    relative = (points - truth).norm(dim=-1) / truth.norm(dim=-1)
    first, second = (
        each[known].median().item() if known.any() else None for each, known in zip(relative, contexts.depth[0] > 0)
    )
    colours = contexts.images[0].permute(0, 2, 3, 1).reshape(-1, 3)
    gaussians = points_as_gaussians(points.reshape(-1, 3), colours, contexts.K[0, 0, 0, 0])
    shown = render_targets(gaussians, batch, 0, scale).images
    found = (psnr(*each) for each in zip(shown, batch.targets.images[0], masks))
    return Score((first, second), [value for value in found if value is not None])


def summarise_row(own: RowScores, reference: RowScores | None, episodes: list[Episode], confidence: float) -> Summary:
    """reference: scores of AS_PREDICTED; None of itself."""

    def interval(values: dict[int, list[float]]) -> Interval | None:
        flat = [(value, episodes[number].scene) for number, each in values.items() for value in each]
        return scene_interval(*zip(*flat), confidence) if flat else None

    errors = (
        interval({number: [e] for number, each in own.items() if (e := each.errors[view]) is not None})
        for view in range(2)
    )
    over = reference and interval(
        {number: list(np.subtract(each.psnr, reference[number].psnr)) for number, each in own.items()}
    )
    return Summary(tuple(errors), interval({number: each.psnr for number, each in own.items()}), over, len(own))


def csv_row(name: str, row: Summary) -> Row:
    views = {f"view_{view}": each.mean if each else None for view, each in enumerate(row.errors, 1)}
    return (
        {"points": name}
        | views
        | interval_cells(METRIC, row.psnr)
        | interval_cells("over_predicted", row.over)
        | {"pairs": row.pairs}
    )


def table_line(name: str, row: Summary) -> list[str]:
    """A line of the Markdown table."""

    def words(interval: Interval | None, sign: bool = False) -> str:
        return with_limits(interval.mean, interval.low, interval.high, sign=sign) if interval else "–"

    errors = (number(each.mean, 3) if each else "–" for each in row.errors)
    return [name, *errors, words(row.psnr), words(row.over, sign=True), str(row.pairs)]


def publish_headroom(table: dict[str, Summary], confidence: float) -> str:
    """Write reports/headroom; returns the table in Markdown."""
    level = level_words(confidence)
    head = [
        "points",
        "error, view 1",
        "error, view 2",
        f"masked PSNR (dB) [{level}]",
        f"over {AS_PREDICTED} [{level}]",
        "pairs",
    ]
    text = markdown(head, [table_line(name, row) for name, row in table.items()])
    differences = {name: Difference(row.over) for name, row in table.items() if row.over}
    label = f"masked PSNR over points {AS_PREDICTED} (dB)"
    with fresh_folder(REPORTS / "headroom") as folder:
        write_rows(folder / "table.csv", [csv_row(name, row) for name, row in table.items()])
        (folder / "table.md").write_text(text + "\n", "utf8")
        if differences:
            chart = forest_chart(
                differences, label, f"{label}, row by row of the table, with {level} intervals over scenes"
            )
            (folder / "chart.svg").write_text(standalone(chart), "utf8")
    return text


def score_pairs(config: Config, episodes: list[Episode]) -> Iterator[dict[str, Score | None]]:
    """Of each pair in order; nothing of pairs without depth."""
    network, in_metres = load_geometry(WEIGHTS), all_in_metres(read_index(SCENES))
    features = Features(FEATURES / "geometry", "tokens"), Features(FEATURES / "backbone", "features")
    samples = Samples(SCENES, *features, config.dataset.resolution, episodes.__getitem__, len(episodes))

    def rows(pair: int) -> dict[str, Score | None]:
        with torch.inference_mode():
            batch = collate([samples[pair]])
            if not (batch.contexts.depth > 0).any():
                return {}
            masks = target_mask(batch, in_metres, config.eval.masks)[0]
            return pair_scores(network, batch, masks, torch_generator(config.seed, "headroom", episodes[pair].id))

    return in_threads(rows, range(len(episodes)), config.threads, "headroom")


def main(config: Config) -> None:
    """raises ValueError when no pair has depth"""
    fix_computation(1)  # of each of the threads that look at different pairs
    episodes = read_episodes(SCENES, config.eval.split, config.dataset.test_category)
    table: dict[str, RowScores] = {}
    blind = 0
    for pair, found in enumerate(score_pairs(config, episodes)):
        blind += not found
        for name, score in found.items():
            table.setdefault(name, {}).update({} if score is None else {pair: score})
    if not table:
        raise ValueError(
            f"No pair of eval.split={config.eval.split} has depth to take the truth from; choose a dataset with depth."
        )
    confidence, first = config.eval.confidence, table[AS_PREDICTED]
    summaries = {
        name: summarise_row(own, None if name == AS_PREDICTED else first, episodes, confidence)
        for name, own in table.items()
    }
    print(publish_headroom(summaries, confidence))
    if blind:
        print(f"{blind} of {len(episodes)} pairs have no depth and are left out.", file=sys.stderr)
    print(f"Written: {(REPORTS / 'headroom').as_posix()}", file=sys.stderr)


if __name__ == "__main__":
    words = Words("headroom")
    words.overrides()
    with mistakes_explained():
        main(load_config(words.parse_args().overrides))
