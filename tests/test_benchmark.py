import copy
import csv
import dataclasses
import json

import pytest
import torch

from src import benchmark
from src.backbones.controls import Nothing, Rgb
from src.benchmark import ModelPieces, choose_device, main, measure_pieces, parameters
from src.splatt3r.fusion import FusionConfig
from src.splatt3r.network import Splatt3R
from src.splatt3r.samples import Views
from src.timing.benchmark_file import Costs, parse_benchmark
from tests.helpers.networks import SMALL

SIDE = 32


def network(channels: int) -> Splatt3R:
    fusion = FusionConfig(channels=channels) if channels else None
    model = Splatt3R(SMALL, fusion=fusion, generator=torch.Generator().manual_seed(0))
    model.apply_strategy("feature_extraction")
    with torch.no_grad():
        for head in (model.downstream_head1, model.downstream_head2):  # all points in front of the cameras
            head.dpt.head[4].weight.zero_()
            head.dpt.head[4].bias.copy_(torch.tensor([0, 0, 1.0, 0]))
    return model.eval()


def views(side: int = SIDE) -> tuple[Views, Views]:
    """Two contexts and a target."""
    g = torch.Generator().manual_seed(1)
    K = torch.tensor([[1.1 * side, 0, side / 2], [0, 1.1 * side, side / 2], [0, 0, 1]])
    images, valid = torch.rand(3, 3, side, side, generator=g), torch.ones(3, side, side, dtype=torch.bool)
    depth, poses = torch.full((3, side, side), 2.0), torch.eye(4).expand(3, 4, 4)
    return tuple(Views(images[p], depth[p], valid[p], K.expand(3, 3, 3)[p], poses[p]) for p in (slice(2), slice(2, 3)))


def run_measured(backbone) -> Costs:
    return measure_pieces(
        ModelPieces(network(backbone.channels), backbone, *views(), None), 1, 2, torch.device("cpu"), None
    )


def test_every_piece_is_measured():
    found = run_measured(Rgb())
    assert found.timings.keys() == {"geometry_encoder", "encode", "render_per_view", "backbone_features"}
    assert all(0 < each.p10_ms <= each.median_ms and each.repeats == 2 for each in found.timings.values())
    assert found.gaussians == 2 * SIDE * SIDE
    assert found.encode_flops > 0 and found.backbone_flops == 0  # pixels need no product
    for memory in (found.inference_memory, found.training_step_memory):
        assert memory.peak_bytes >= memory.before_bytes > 2**20 and "resident" in memory.what


def test_flops_of_the_encoder_agree_with_a_count_by_hand():
    """Patch embedding, and per block: queries, keys, values and output 4 N E^2, attention 2 N^2 E, MLP 8 N E^2."""
    pieces = ModelPieces(network(0), Nothing(), *views(), None)
    n, e = (SIDE // 16) ** 2, SMALL.enc_embed_dim
    products = n * 3 * 256 * e + SMALL.enc_depth * (12 * n * e * e + 2 * n * n * e)
    assert benchmark.flops(pieces.tokens) == 2 * 2 * products  # two photographs, two operations per product


def test_what_a_missing_backbone_does_not_have_is_absent():
    found = run_measured(Nothing())
    assert found.backbone_features is found.backbone_flops is None and "encode" in found.timings


def test_the_pieces_make_what_the_network_makes():
    backbone, (contexts, targets) = Rgb(), views()
    pieces = ModelPieces(network(backbone.channels), backbone, contexts, targets, None)
    with torch.no_grad():
        image1, image2 = contexts.images.split(1)
        model = pieces.network
        wanted = model(
            model.encode(2 * image1 - 1),
            model.encode(2 * image2 - 1),
            image1,
            image2,
            backbone(image1),
            backbone(image2),
        )
        torch.testing.assert_close(pieces.encode().gaussians.means, wanted.gaussians.means)
        assert pieces.inputs().features.shape[:3] == (1, 2, backbone.channels)


def test_measuring_changes_no_weight():
    pieces = ModelPieces(network(Rgb().channels), Rgb(), *views(), None)
    before = copy.deepcopy(pieces.network.state_dict())
    measure_pieces(pieces, 0, 1, torch.device("cpu"), None)
    assert all(torch.equal(before[name], value) for name, value in pieces.network.state_dict().items())
    assert not pieces.network.training and all(p.grad is None for p in pieces.network.parameters())


def test_a_training_step_reaches_every_trainable_group():
    pieces = ModelPieces(network(Rgb().channels), Rgb(), *views(), None)
    gradients = {}
    for name, parameter in pieces.network.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda g, name=name: gradients.__setitem__(name, float(g.abs().sum())))
    with torch.no_grad():
        inputs = pieces.inputs()
    pieces.training_step(inputs)
    for group in ("gaussian_head", "fusion"):
        assert sum(gradients.get(name, 0) for name in pieces.network.parameter_groups()[group]) > 0, group


def test_parameters_are_counted_by_group():
    backbone = Rgb()
    model = network(backbone.channels)
    counts = parameters(model, backbone)
    wanted = {"encoder": ("patch_embed.", "enc_blocks.", "enc_norm."), "fusion": ("fusion.",)}
    for name, starts in wanted.items():
        assert counts[name] == sum(p.numel() for key, p in model.named_parameters() if key.startswith(starts)) > 0
    every = sum(p.numel() for key, p in model.named_parameters() if key != "mask_token")
    assert sum(counts[name] for name in ("encoder", "decoder", "gaussian_heads", "point_heads", "fusion")) == every
    assert counts["backbone"] == 0 and counts["trainable"] < every


def test_cuda_where_there_is_none_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="benchmark.device is cuda"):
        choose_device("cuda")


@dataclasses.dataclass
class Settings:
    """The part of the configuration that `main` reads."""

    resolutions: tuple = (48,)
    warmup: int = 1
    repeats: int = 3
    device: str = "cpu"
    precision: str = "bf16-mixed"
    seed: int = 0
    threads: int = 2
    feature_grid: str = "aligned"
    geometry: str = "tiny"
    split: str = "test"

    @property
    def benchmark(self):
        return self

    @property
    def model(self):
        return self

    @property
    def eval(self):
        return self


def test_the_stage_writes_its_numbers_and_a_constant_stamp(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "fix_computation", lambda threads: None)
    monkeypatch.setattr(benchmark.backbones, "load_backbone", lambda model, folder: Rgb())
    monkeypatch.setattr(benchmark.build, "load_model", lambda *arguments: (network(Rgb().channels), {}))
    monkeypatch.setattr(benchmark, "read_views", lambda split, side, device: views(side))
    (tmp_path / "data/weights/backbone").mkdir(parents=True)
    (tmp_path / "data/weights/backbone/record.json").write_text('{"weights": "none"}')
    main(Settings())
    text = (tmp_path / "reports/benchmark.json").read_text()
    written, read = json.loads(text), parse_benchmark(text)
    assert written["resolutions"].keys() == {"48"} and written["backbone"] == "RGB pixels and coordinates"
    assert written["resolutions"]["48"]["gaussians"] == 2 * 48 * 48
    assert written["hardware"]["cpu"] and written["versions"]["torch"] and len(written["params"]) == 16
    assert read.params == written["params"] and read.sides == ["48"] and read.costs("48").encode.repeats == 3
    with open(tmp_path / "reports/benchmark.csv") as file:
        rows = {row["piece"]: row for row in csv.DictReader(file)}
    assert {row["model"] for row in rows.values()} == {"RGB pixels and coordinates"} and len(rows) == 4
    encode = written["resolutions"]["48"]["encode"]
    assert float(rows["encode, 48 px"]["median_ms"]) == pytest.approx(encode["median_ms"], abs=1e-5)
    stamp = (tmp_path / "reports/benchmark_stamp.json").read_bytes()
    main(Settings())
    assert (tmp_path / "reports/benchmark_stamp.json").read_bytes() == stamp
