"""torch.hub against repositories written here: a hubconf.py of the published form, with a network of our own in it."""

import urllib.error
from pathlib import Path

import pytest
import torch

from src import backbones, weights
from src.backbones.dinov2 import DinoV2
from src.config import load_config
from src.fetching import torch_hub
from src.fetching.fetch import FetchError
from src.mast3r.weight_file import CheckpointError
from src.reproducible.files import read_json
from tests.helpers.repository import ROOT

pytestmark = pytest.mark.usefixtures("weights_folder")

SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 4}
HUBCONF = """
import math
import torch
from torch import nn
from torch.nn.functional import interpolate, layer_norm

dependencies = ["torch"]


class Branch(nn.Module):
    def __init__(self, **layers):
        super().__init__()
        for name, (inside, outside) in layers.items():
            setattr(self, name, nn.Linear(inside, outside))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Branch(qkv=(width, 3 * width), proj=(width, width))
        self.mlp = Branch(fc1=(width, 4 * width), fc2=(4 * width, width))
        for name in ("ls1", "ls2"):
            branch = nn.Module()
            branch.gamma = nn.Parameter(torch.ones(width))
            setattr(self, name, branch)

    def forward(self, x, heads=4):
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in self.attn.qkv(self.norm1(x)).chunk(3, -1))
        mixed = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
        x = x + self.ls1.gamma * self.attn.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.ls2.gamma * self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class Network(nn.Module):
    def __init__(self, width=64, depth=2, registers=0):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1370, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.registers = registers
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, 14, 14)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward_features(self, images):
        patches = self.patch_embed.proj(images)
        h, w = patches.shape[-2:]
        table = self.pos_embed[:, 1:].mT.unflatten(-1, (37, 37))
        if (h, w) == (37, 37):
            pass
        elif self.registers:
            table = interpolate(table, (h, w), mode="bicubic", antialias=True)
        else:
            table = interpolate(table, scale_factor=((h + OFFSET) / 37, (w + OFFSET) / 37), mode="bicubic")
        front = [(self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)]
        if self.registers:
            front.append(self.register_tokens.expand(len(images), -1, -1))
        x = torch.cat([*front, (patches + table).flatten(2).mT], 1)
        for block in self.blocks:
            x = block(x)
        return {"x_norm_patchtokens": self.norm(x)[:, 1 + self.registers:]}


def dinov2_vits14(*, pretrained=True, **options):
    if pretrained:
        raise RuntimeError("the weights were to come from elsewhere")
    return Network(**options)


def dinov2_vits14_reg(*, pretrained=True, **options):
    return dinov2_vits14(pretrained=pretrained, registers=4, **options)
"""


def write_repository(folder: Path, offset: float = 0.1) -> Path:
    (folder / torch_hub.HUB_FOLDER).mkdir(parents=True)
    (folder / torch_hub.HUB_FOLDER / "hubconf.py").write_text(HUBCONF.replace("OFFSET", str(offset)))
    return folder / torch_hub.HUB_FOLDER


def published(repository: Path, name: str) -> torch.nn.Module:
    """The repository's network with seeded weights: every term matters, and none makes rounding errors grow."""
    network = torch.hub.load(str(repository), name, source="local", verbose=False, pretrained=False).eval()
    generator = torch.Generator().manual_seed(0)
    for key, parameter in network.named_parameters():
        scale = parameter[0].numel() ** -0.5 if key.endswith("weight") and parameter.ndim > 1 else 0.3
        parameter.data = ("norm" in key) + scale * torch.randn(parameter.shape, generator=generator)
    return network


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean[:, None, None]) / std[:, None, None]


def config(name: str, *overrides: str):
    return load_config(
        [
            "threads=1",
            "loss.lpips_loss_weight=0",
            "model.backbone=dinov2",
            f"model.dinov2_model={name}",
            "model.weights=pretrained",
            "weights.dinov2_source=torchhub",
            "eval.lpips=none",
            *overrides,
        ],
        ROOT,
    )


@pytest.fixture(autouse=True)
def small_networks(monkeypatch, tmp_path):
    """DINOv2 of another size under the published names, and a folder of torch.hub's own."""
    monkeypatch.setitem(backbones.FAMILIES, "dinov2", lambda model, seed: DinoV2(model.dinov2_model, **SMALL))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch_hub"))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "file"),
    [("dinov2_vits14", "dinov2_vits14_pretrain.pth"), ("dinov2_vits14_reg", "dinov2_vits14_reg4_pretrain.pth")],
)
def test_features_are_those_of_the_repositorys_network_and_of_the_file(tmp_path, capsys, name, file):
    theirs = published(write_repository(tmp_path / "root"), name)
    torch.save(theirs.state_dict(), tmp_path / "root" / file)
    chosen = config(name, "weights.root=root")
    weights.main(chosen)
    assert f"torch.hub runs the code of facebookresearch/dinov2 at commit {torch_hub.COMMIT}" in capsys.readouterr().out
    record = read_json("data/weights/backbone/record.json")
    assert record["weights"] == "pretrained"
    assert record["source"].endswith(f"/{file}, by torch.hub facebookresearch/dinov2:{torch_hub.COMMIT}")
    ours = backbones.load_backbone(chosen.model, "data/weights/backbone")
    for height, width in ((224, 224), (308, 224), (518, 518)):
        images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
        expected = theirs.forward_features(normalised(images))["x_norm_patchtokens"]
        error = (ours(images).flatten(2).mT - expected).abs().max() / expected.abs().max()
        assert error < 1e-5
    by_hub = Path("data/weights/backbone/model.safetensors").read_bytes()
    weights.main(config(name, "weights.root=root", "weights.dinov2_source=file"))
    assert Path("data/weights/backbone/model.safetensors").read_bytes() == by_hub


def test_a_repository_in_torch_hubs_own_folder_is_used_offline(tmp_path, monkeypatch):
    theirs = published(write_repository(tmp_path / "torch_hub"), "dinov2_vits14")
    (tmp_path / "scratch/downloads").mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path / "scratch/downloads/dinov2_vits14_pretrain.pth")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weights.main(config("dinov2_vits14"))
    assert "torch.hub" in read_json("data/weights/backbone/record.json")["source"]


def test_another_networks_features_are_noticed(tmp_path):
    theirs = published(write_repository(tmp_path / "root", offset=0.0), "dinov2_vits14")
    torch.save(theirs.state_dict(), tmp_path / "root/dinov2_vits14_pretrain.pth")
    with pytest.raises(
        ValueError, match="Features of torch.hub's dinov2_vits14 differ from ours by .*dinov2_source=file"
    ):
        weights.main(config("dinov2_vits14", "weights.root=root"))
    assert not Path("data/weights/backbone").exists()


def test_a_file_that_the_repositorys_network_refuses(tmp_path):
    state = published(write_repository(tmp_path / "root"), "dinov2_vits14").state_dict()
    del state["norm.bias"]
    torch.save(state, tmp_path / "root/dinov2_vits14_pretrain.pth")
    with pytest.raises(
        CheckpointError,
        match="dinov2_vits14_pretrain.pth does not fit the network that torch.hub built: "
        "1 tensors are missing .*norm.bias",
    ):
        weights.main(config("dinov2_vits14", "weights.root=root"))


def test_without_the_repository_nothing_is_fetched_where_it_may_not_be(tmp_path, monkeypatch):
    with pytest.raises(FetchError, match=f"is not in weights.root; place the repository at {tmp_path}/facebook.*=file"):
        torch_hub.meta_network("dinov2_vits14", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        FetchError, match="HF_HUB_OFFLINE is set; place the repository at .*torch_hub/facebookresearch_"
    ):
        torch_hub.meta_network("dinov2_vits14", None)


def test_the_code_is_asked_for_at_one_commit_without_its_own_weights(monkeypatch):
    asked = []

    def no_connection(*names, **options):
        asked.append((names, options["pretrained"]))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load", no_connection)
    with pytest.raises(FetchError, match="cannot load dinov2_vits14 of facebookresearch/dinov2 .*no route to host"):
        torch_hub.meta_network("dinov2_vits14", None)
    assert (
        asked == [((f"facebookresearch/dinov2:{torch_hub.COMMIT}", "dinov2_vits14"), False)]
        and len(torch_hub.COMMIT) == 40
    )
