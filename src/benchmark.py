"""Stage `benchmark`: how fast the model is, how much memory and arithmetic it takes, and on what hardware.

    python -m src.benchmark [key=value ...]   every piece of the model, on a pair of test views per resolution
    python -m src.benchmark --rasterizer      the CPU rasteriser against vectorised torch, printed; needs no other stage

reads data/scenes, data/weights, data/model; writes reports/benchmark.json, which no two runs share, its timings as
benchmark.csv for `dvc plots`, and the constant reports/benchmark_stamp.json, which tells DVC that they were written
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from src import backbones
from src.backbones.base import Backbone
from src.config import Config
from src.episodes.episodes import read_episodes
from src.geometry.cameras import relative_pose
from src.reproducible.files import read_json, write_json
from src.reproducible.hashes import params_hash
from src.reproducible.seeds import fix_computation
from src.reproducible.versions import git_revision, versions
from src.results.tables import write_rows
from src.run import Words, run
from src.scenes.crop import PATCH
from src.scenes.scene import Scene
from src.splatt3r import build
from src.splatt3r.network import SplatOutput, Splatt3R
from src.splatt3r.posed import Cameras, PosedSplatt3R
from src.splatt3r.prediction import predict, render_targets, splat, splat_posed
from src.splatt3r.samples import Sample, Views, collate, each_tensor
from src.timing import rasterizers
from src.timing.benchmark_file import BENCHMARK_FILE, Costs, Timing, write_benchmark
from src.timing.measure import flops, hardware, measure, peak_memory

SCENES, WEIGHTS, MODEL = Path("data/scenes"), Path("data/weights"), Path("data/model")
RESULT, STAMP = Path("reports", BENCHMARK_FILE), Path("reports/benchmark_stamp.json")
GROUP_NAMES = {"gaussian_head": "gaussian_heads", "point_head": "point_heads"}  # in the file; there is one per view
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class ModelPieces:
    """The parts of one pass over a pair of images, each callable by itself.

    contexts, targets  two views and one
    cells              (h, w) of the feature map asked of the backbone; None = its own
    """

    def __init__(
        self, network: Splatt3R, backbone: Backbone, contexts: Views, targets: Views, cells: tuple[int, int] | None
    ):
        self.network, self.backbone, self.contexts, self.targets = network, backbone, contexts, targets
        self.cells, self.pair = cells, contexts.images

    def tokens(self) -> Tensor:
        """(2, N, E) of the geometry network's encoder."""
        return self.network.encode(2 * self.pair - 1)

    def features(self) -> Tensor | None:
        """(2, C, gh, gw) of the backbone; None where it has no channels."""
        views = self.contexts
        return (
            self.backbone.of_views(views.images, views.depth, views.K, self.cells) if self.backbone.channels else None
        )

    def inputs(self) -> Sample:
        """A batch of one, as the stages read it from disk."""
        return collate([Sample(self.contexts, self.targets, self.tokens(), self.features())])

    def encode(self) -> SplatOutput:
        """Two images to Gaussians; in the posed track with the pair's own cameras, in metres."""
        tokens, features = self.tokens()[None], self.features()
        given = self.pair[None], tokens, None if features is None else features[None]
        if isinstance(self.network, PosedSplatt3R):
            K, c2w = self.contexts.K[None], self.contexts.c2w
            cameras = Cameras(K, relative_pose(c2w[:1], c2w[1:]), torch.ones_like(K[:, 0, 0, 0]))
            return splat_posed(self.network, *given, cameras)
        return splat(self.network, *given)

    def training_step(self, inputs: Sample) -> None:
        """One step on cached features: render the target, mean squared error, Adam. Its rate is 0: nothing changes."""
        optimizer = torch.optim.Adam([p for p in self.network.parameters() if p.requires_grad], lr=0.0)
        prediction = predict(self.network, inputs)
        shown = render_targets(prediction.output.gaussians[0], inputs, 0, prediction.scales[0]).images
        (shown - inputs.targets.images[0]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def parameters(network: Splatt3R, backbone: Backbone) -> dict[str, int]:
    """Numbers of parameters by group; `trainable` of those in all."""
    counts = {
        GROUP_NAMES.get(group, group): sum(p.numel() for p in members.values())
        for group, members in network.parameter_groups().items()
    }
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return counts | {"backbone": backbone.num_parameters, "trainable": trainable}


def measure_pieces(
    pieces: ModelPieces, warmup: int, repeats: int, device: torch.device, dtype: torch.dtype | None
) -> Costs:
    """All numbers of one resolution."""

    def timed(work: Callable[[], object]) -> Timing:
        return measure(work, warmup, repeats, device)

    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        with torch.inference_mode():
            inputs = pieces.inputs()
            prediction = predict(pieces.network, inputs)
            gaussians, scale = prediction.output.gaussians[0], prediction.scales[0]

            def show() -> None:
                render_targets(gaussians, inputs, 0, scale)

            def infer() -> None:
                render_targets(pieces.encode().gaussians[0], inputs, 0, scale)

            found = {
                "gaussians": len(gaussians),
                "geometry_encoder": timed(pieces.tokens),
                "encode": timed(pieces.encode),
                "render_per_view": timed(show),
                "encode_flops": flops(pieces.encode),
                "inference_memory": peak_memory(infer, device),
            }
            if pieces.backbone.channels:
                found |= {"backbone_features": timed(pieces.features), "backbone_flops": flops(pieces.features)}
        pieces.network.train()
        inputs = each_tensor(Tensor.clone, inputs)  # no longer of inference mode
        found["training_step_memory"] = peak_memory(lambda: pieces.training_step(inputs), device)
        pieces.network.eval()
    return Costs(**found)


def timing_rows(resolutions: dict[str, Costs], model: str) -> list[dict]:
    """A row per timed piece and resolution."""
    return [
        {
            "piece": f"{piece.replace('_', ' ')}, {side} px",
            "median_ms": timing.median_ms,
            "p10_ms": timing.p10_ms,
            "p90_ms": timing.p90_ms,
            "model": model,
        }
        for side, costs in resolutions.items()
        for piece, timing in costs.timings.items()
    ]


def read_views(split: str, side: int, device: torch.device) -> tuple[Views, Views]:
    """The contexts of a split's first episode, and its first target, at side x side pixels."""
    episode = read_episodes(SCENES, split)[0]
    scene = Scene.open(SCENES / "scenes" / f"{episode.scene}.safetensors", episode.scene_sha256)
    contexts, targets = (
        each_tensor(lambda tensor: tensor.to(device), Views.of([scene.view(name, (side, side)) for name in names]))
        for names in (episode.contexts, episode.targets[:1])
    )
    return contexts, targets


def choose_device(wanted: str) -> torch.device:
    """raises ValueError when params.yaml asks for CUDA where there is none"""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("benchmark.device is cuda, but torch sees no CUDA device; set it to cpu or auto.")
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def main(config: Config) -> None:
    fix_computation(config.threads)
    settings = config.benchmark
    device, dtype = choose_device(settings.device), AUTOCAST[settings.precision]
    backbone = backbones.load_backbone(config.model, WEIGHTS / "backbone").to(device)
    network = build.load_model(config, WEIGHTS / "geometry", MODEL)[0].to(device)
    resolutions = {}
    for side in settings.resolutions:
        cells = (side // PATCH, side // PATCH) if config.model.feature_grid == "aligned" else None
        pieces = ModelPieces(network, backbone, *read_views(config.eval.split, side, device), cells)
        resolutions[str(side)] = measure_pieces(pieces, settings.warmup, settings.repeats, device, dtype)
    record = read_json(WEIGHTS / "backbone" / "record.json")
    label = backbone.label(record["weights"])
    write_rows(RESULT.with_suffix(".csv"), timing_rows(resolutions, label))
    write_benchmark(
        RESULT,
        params=params_hash(config.seed, config.threads, config.model, settings),
        device=device.type,
        precision=settings.precision,
        warmup=settings.warmup,
        repeats=settings.repeats,
        hardware=hardware(),
        parameters=parameters(network, backbone),
        resolutions=resolutions,
        backbone=label,
        geometry=config.model.geometry,
        versions=versions(),
        git_revision=git_revision(),
    )
    write_json(STAMP, {"written": str(RESULT)})


if __name__ == "__main__":
    words = Words("benchmark")
    words.add_argument("--rasterizer", action="store_true")
    words.overrides()
    asked = words.parse_args()
    if asked.rasterizer:
        rasterizers.main()
    else:
        run(main, "benchmark", asked.overrides)
