"""Stage `render`: the test episodes' target views as the model and the baselines show them.

    python -m src.render [key=value ...]

reads data/scenes, data/features, data/weights/geometry, data/model; writes data/renders: a safetensors per episode and,
of a few, .ply files: the model's Gaussians and those of the baseline points_splat
"""

import shutil
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from src.config import Config
from src.episodes.episodes import Episode, read_episodes
from src.geometry.alignment import camera_in_prediction
from src.mast3r.network import Mast3r
from src.renders.baselines import nearest_context, points_as_gaussians, splat_points
from src.renders.episode_file import write_episode
from src.renders.ply import write_ply
from src.reproducible.seeds import fix_computation
from src.run import memory_advice, run
from src.scenes.features import Features
from src.scenes.scene import all_in_metres, read_index
from src.splatt3r.build import load_model, scale_reference
from src.splatt3r.network import Splatt3R
from src.splatt3r.prediction import predict, render_targets, target_mask
from src.splatt3r.samples import Sample, Samples, collate
from src.splatting.gaussians import Gaussians

SCENES, FEATURES, RENDERS = Path("data/scenes"), Path("data/features"), Path("data/renders")
GEOMETRY, MODEL = Path("data/weights/geometry"), Path("data/model")


def episode_renders(
    network: Splatt3R, sample: Sample, in_metres: bool, masks: str, frozen: Mast3r | None = None
) -> tuple[dict[str, Tensor], dict[str, Gaussians]]:
    """All pictures of one episode, each (T, ...); names without a suffix trust the prediction's scale, `_aligned` ones
    have the true cameras multiplied by the prediction's scale. `depth_aligned` is in the dataset's units. The baselines
    show the frozen geometry's points, whatever the model did with them: `points_depth` as splatted, `points_means` as
    they are. Also the Gaussians that `render` and `points_splat` show."""
    batch, contexts, targets = collate([sample]), sample.contexts, sample.targets
    prediction = predict(network, batch, frozen, in_metres)
    gaussians, scale = prediction.output.gaussians[0], prediction.scales[0]
    points, colours = prediction.geometry[0].reshape(-1, 3), contexts.images.permute(0, 2, 3, 1).reshape(-1, 3)
    splats = points_as_gaussians(points, colours, contexts.K[0, 0, 0])
    nearest = nearest_context(contexts.c2w, targets.c2w)
    pictures = {"copy_nearest": contexts.images[nearest], "mask": target_mask(batch, in_metres, masks)[0]}
    for suffix, factor, own in (("", 1.0, 1.0), ("_aligned", scale, prediction.geometry_scales[0])):
        rendering = render_targets(gaussians, batch, 0, factor)
        cameras = camera_in_prediction(contexts.c2w[0], targets.c2w, own)
        splatted = render_targets(splats, batch, 0, own)
        pictures |= {
            f"render{suffix}": rendering.images,
            f"alpha{suffix}": rendering.alphas,
            f"depth{suffix}": rendering.depths / factor,
            f"points{suffix}": splat_points(points, colours, cameras, targets.K, targets.size),
            f"points_splat{suffix}": splatted.images,
            f"points_depth{suffix}": splatted.depths / own,
        }
    pictures |= {"means": gaussians.means, "scale": scale.double().reshape(1)}
    pictures |= {"points_means": points, "points_scale": prediction.geometry_scales[0].double().reshape(1)}
    return pictures, {"render": gaussians, "points_splat": splats}


def about_episode(episode: Episode, scored_in: str) -> dict:
    """What an episode's file says of it; scored_in: its bin. Pictures of what it repeats follow those of its targets."""
    return {
        "episode": episode.id,
        "scene": episode.scene,
        "contexts": list(episode.contexts),
        "targets": list(episode.targets),
        "bin": scored_in,
        "category": episode.category,
    } | ({"repeated": list(episode.repeated)} if episode.repeated else {})


def bins(episodes: list[Episode]) -> list[str]:
    """The overlap bin that each episode is scored in: its own, or of its own kind where overlap was measured in more
    than one way, for shares of depth maps and of view frustums are not alike."""
    several = len({episode.overlap_source for episode in episodes}) > 1
    return [f"{episode.bin}_{episode.overlap_source}" if several else episode.bin for episode in episodes]


def to_export(episodes: list[Episode], count: int) -> set[str]:
    """Episodes whose Gaussians become .ply files: the first of each scene, families taking turns."""
    families = {}
    for episode in episodes:
        families.setdefault(episode.category, {}).setdefault(episode.scene, episode.id)
    turns = zip_longest(*(first.values() for first in families.values()))
    return set([episode for turn in turns for episode in turn if episode][:count])


@memory_advice()
@torch.inference_mode()
def main(config: Config) -> None:
    fix_computation(config.threads)
    network, _ = load_model(config, GEOMETRY, MODEL)
    frozen = scale_reference(network, GEOMETRY)
    episodes = read_episodes(SCENES, config.eval.split, config.dataset.test_category)
    in_metres = all_in_metres(read_index(SCENES))
    samples = Samples(
        SCENES,
        Features(FEATURES / "geometry", "tokens"),
        Features(FEATURES / "backbone", "features"),
        config.dataset.resolution,
        lambda number: replace(episodes[number], targets=episodes[number].targets + episodes[number].repeated),
        len(episodes),
    )
    shutil.rmtree(RENDERS, ignore_errors=True)
    RENDERS.mkdir(parents=True)
    exported, scored_in = to_export(episodes, config.eval.num_plys), bins(episodes)
    for number, episode in enumerate(tqdm(episodes, desc="render")):
        pictures, clouds = episode_renders(network, samples[number], in_metres, config.eval.masks, frozen)
        write_episode(RENDERS, about_episode(episode, scored_in[number]), pictures)
        if episode.id in exported:
            write_ply(RENDERS / f"{episode.id}.ply", clouds["render"])
            write_ply(RENDERS / f"{episode.id}.points_splat.ply", clouds["points_splat"])


if __name__ == "__main__":
    run(main, "render")
