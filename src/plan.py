"""What a run will take, before it is started: images, episodes, disk, arithmetic.

    python -m src.plan [key=value ...]

reads params.yaml, and data/scenes where the stage prepare has run for this dataset: it alone knows how many images there
are, but for procedural scenes, of which the parameters tell. Writes nothing. Ends with exit status 1 where the disk has
too little room. Times are not foretold: an operation costs what the machine makes of it, see `python -m src.benchmark`.
"""

import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from src.backbones.base import Backbone
from src.backbones.registry import build_backbone
from src.config import Config, load_config
from src.episodes.bins import OVERLAP_BINS
from src.episodes.episodes import read_episodes
from src.mast3r.network import DUST3R_DPT, DUST3R_LINEAR, MAST3R, Mast3r, Mast3rConfig
from src.mast3r.weight_file import read_checkpoint
from src.parameters.datasets import Procedural
from src.reproducible.files import read_json
from src.run import Words, mistakes_explained, stage_times
from src.scenes.scene import read_index
from src.timing.measure import flops

SCENES = Path("data/scenes")
OFFICIAL = {  # sizes of the networks whose files nobody has to open for them
    "mast3r": MAST3R,
    "splatt3r": MAST3R,
    "dust3r": DUST3R_DPT,
    "dust3r_linear": DUST3R_LINEAR,
    "dust3r_224": DUST3R_LINEAR,
}
HALF_PRECISION = 2  # bytes of a number in half precision
SCENE_BYTES = 1.7  # per pixel of a view: colours, and depth where there is any; of the default's scenes
NUMBERS_PER_PIXEL = (
    27.5  # of a target: two alignments of three pictures, an alpha map and two depth maps; a picture, a mask
)
NUMBERS_PER_CONTEXT = 2 * 2 * 3  # per pixel of a pair: means of both views' Gaussians and points


@dataclass(frozen=True)
class Plan:
    """images: by split; episodes: that are scored; disk: folder -> bytes; operations: what -> floating-point operations;
    counted: whether data/scenes was counted."""

    images: dict[str, int]
    episodes: int
    disk: dict[str, int]
    operations: dict[str, int]
    counted: bool


def images_by_split(config: Config) -> tuple[dict[str, int], bool]:
    """Images of each split, and whether data/scenes told them.

    raises    ValueError where nothing tells
    """
    report, counts = SCENES / "report.json", Counter()
    if prepared := report.exists() and read_json(report)["dataset"] == config.data.dataset:
        for record in read_index(SCENES):
            counts[record.split] += record.n_frames
    if isinstance(config.dataset, Procedural):
        source = config.dataset.source
        each = len(source.families) * source.views
        asked = {split: each * vars(source.scenes)[split] for split in ("train", "val", config.eval.split)}
        return asked, counts == asked  # else data/scenes was made with other parameters
    if not prepared:
        raise ValueError(
            f"{SCENES} holds no scenes of {config.data.dataset}, and nothing else tells how many images it has; run "
            "dvc repro prepare with these parameters first."
        )
    return dict(counts), True


def scored_episodes(config: Config, counted: bool) -> int:
    """Those listed in data/scenes, or at most so many."""
    if counted:
        return len(read_episodes(SCENES, config.eval.split, config.dataset.test_category))
    source = config.dataset.source
    scenes = len(source.families) * vars(source.scenes)[config.eval.split]
    return scenes * len(OVERLAP_BINS) * config.dataset.episodes.per_bin


def geometry_sizes(config: Config) -> Mast3rConfig:
    return OFFICIAL.get(config.model.geometry) or read_checkpoint(config.geometries[config.model.geometry].file).config


def operations_of(config: Config, sizes: Mast3rConfig, backbone: Backbone) -> dict[str, int]:
    """Of one image or pair: multiplications and additions of the matrix products, see `flops`."""
    width, height = config.dataset.resolution
    network, picture = Mast3r(sizes), torch.empty(1, 3, height, width)
    network.heads_in_autocast = True  # the device meta knows no autocast to leave
    resized = torch.empty(1, 3, *(cells * backbone.patch_size for cells in backbone.grid(picture)))
    encoded = flops(lambda: network.encode(picture))
    orders = 2 if config.model.cameras == "posed" else 1  # each view once the first of the pair
    return {
        "geometry, an image": encoded,
        "backbone, an image": flops(lambda: backbone.features(resized)) if backbone.channels else 0,
        "geometry, a pair": orders * (flops(lambda: network(picture, picture)) - 2 * encoded),
    }


def plan(config: Config) -> Plan:
    """raises ValueError where nothing tells how many images the dataset has"""
    images, counted = images_by_split(config)
    total, episodes, sizes = sum(images.values()), scored_episodes(config, counted), geometry_sizes(config)
    width, height = config.dataset.resolution
    pixels = width * height
    with torch.device("meta"):
        backbone = build_backbone(config.model, None)
        operations = operations_of(config, sizes, backbone)
        rows, columns = backbone.grid(torch.empty(1, 3, height, width))
    if config.model.feature_grid == "aligned":
        rows, columns = height // sizes.patch_size, width // sizes.patch_size
    pictures = config.dataset.episodes.num_targets * NUMBERS_PER_PIXEL + NUMBERS_PER_CONTEXT
    disk = {
        "data/scenes": int(SCENE_BYTES * pixels * total),
        "data/features/geometry": HALF_PRECISION * total * (pixels // sizes.patch_size**2) * sizes.enc_embed_dim,
        "data/features/backbone": HALF_PRECISION * total * backbone.channels * rows * columns,
        "data/renders": HALF_PRECISION * episodes * pixels * pictures,
    }
    return Plan(images, episodes, disk, operations, counted)


def size_on_disk(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def copies() -> int:
    """How often DVC keeps an output: once where the cache can link to it, else twice."""
    from dvc.fs import localfs  # here, as it takes a second
    from dvc.repo import Repo
    from dvc_objects.fs.generic import test_links

    repo = Repo()
    kinds = repo.config["cache"].get("type") or ["reflink", "copy"]
    found = test_links(kinds, localfs, repo.cache.local.path, localfs, repo.root_dir)
    return 2 if found[:1] in ([], ["copy"]) else 1


def words(config: Config, found: Plan, kept: int, free: int) -> list[str]:
    """The plan in lines. kept: of `copies`; free: bytes of the disk."""
    by_split = ", ".join(f"{split} {count}" for split, count in found.images.items())
    total = sum(found.images.values())
    opt, pairs = config.opt, found.operations["geometry, a pair"]
    trained = opt.steps * config.data.batch_size * opt.devices * opt.num_nodes
    each = found.operations["geometry, an image"] + found.operations["backbone, an image"]
    lines = [
        f"images      {total:,} ({by_split}) at {' x '.join(map(str, config.dataset.resolution))} pixels, "
        + ("as data/scenes has them" if found.counted else "of procedural scenes"),
        f"episodes    {'' if found.counted else 'at most '}{found.episodes:,} scored; {trained:,} trained on",
        *(f"disk        {size / 1e9:9.3f} GB  {folder}" for folder, size in found.disk.items()),
        f"            {sum(found.disk.values()) * kept / 1e9:9.3f} GB  in all"
        + (", as DVC's cache keeps a copy of each" if kept > 1 else ""),
        f"            {free / 1e9:9.3f} GB  free",
        f"arithmetic  {total * each / 1e12:9.3f} TFLOP  extract, {each / 1e9:.2f} GFLOP an image",
        f"            {trained * pairs / 1e12:9.3f} TFLOP  train, the frozen network alone, {pairs / 1e9:.2f} GFLOP a pair",
        f"            {found.episodes * pairs / 1e12:9.3f} TFLOP  render, the frozen network alone",
    ]
    if times := stage_times():
        largest = max(times, key=lambda stage: times[stage].peak_bytes)
        lines.append(
            f"memory      {times[largest].peak_bytes / 1e9:9.3f} GB  {largest}, the largest stage as last run here, with "
            "whatever parameters it had"
        )
    return lines


def main(overrides: list[str]) -> None:
    with mistakes_explained():
        config = load_config(overrides)
        found, kept, free = plan(config), copies(), shutil.disk_usage(".").free
    print(*words(config, found, kept, free), sep="\n")
    missing = sum(max(0, size - size_on_disk(folder)) for folder, size in found.disk.items()) * kept
    if missing > free:
        sys.exit(
            f"error: The disk has {free / 1e9:.1f} GB free, and the run will write {missing / 1e9:.1f} GB; free the rest, "
            "move the repository, or take a smaller backbone, resolution or number of scenes."
        )


if __name__ == "__main__":
    arguments = Words("plan")
    arguments.overrides()
    main(arguments.parse_args().overrides)
