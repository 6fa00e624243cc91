import argparse
import hashlib
import json
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from src import backbones, fetch, weights
from src import config as parameters
from src.backbones.base import Backbone
from src.backbones.dinov2 import DinoV2, source_of
from src.checkpoints import CheckpointError, read_checkpoint, write_geometry
from src.config import load
from src.fetch import FetchError, Source
from src.mast3r import Mast3r, Mast3rConfig
from src.metrics import load_lpips, lpips_distance
from src.provenance import read_json, write_json
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[1]
GEOMETRY = Mast3rConfig(enc_embed_dim=16, enc_depth=1, enc_num_heads=2, dec_embed_dim=16, dec_depth=4, dec_num_heads=2,
                        head="dpt", dpt_feature_dim=8, dpt_last_dim=4, dpt_layer_dims=(4, 4, 8, 8))
FOLDERS = ("geometry", "backbone", "lpips_loss", "lpips_eval")
DINOV2 = ("model.backbone=dinov2", "model.weights=pretrained")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty repository with a bundled geometry network, and a folder `root` for files placed by hand."""
    network = Mast3r(GEOMETRY)
    network.init_weights(torch.Generator().manual_seed(0))
    write_geometry(tmp_path / "data/bundled/geometry.safetensors", GEOMETRY, network.state_dict())
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def config(*overrides: str):
    return load(["threads=2", "model.backbone=rgb", *overrides], ROOT)


def records() -> dict[str, dict]:
    return {name: read_json(f"data/weights/{name}/record.json") for name in FOLDERS}


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
    assert found["lpips_loss"]["name"] == found["lpips_eval"]["name"] == "none"
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
    loaded = backbones.load(chosen.model, "data/weights/backbone")
    assert torch.equal(loaded(images), published(images))
    several = config(*DINOV2, "model.backbone_layers=[6,12]")
    assert torch.equal(backbones.load(several.model, "data/weights/backbone")(images)[:, 384:], published(images))
    write_json("data/weights/backbone/record.json", record | {"name": "dinov2_vitb14"})
    with pytest.raises(ValueError, match="holds weights of dinov2_vitb14, but the parameters ask for dinov2_vits14"):
        backbones.load(chosen.model, "data/weights/backbone")


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
    monkeypatch.setattr(parameters, "BACKBONES", (*parameters.BACKBONES, "tiny"))


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
    for words in ("model.weights=pretrained", "dinov2_vits14_pretrain.pth", "cannot be reached", "scratch/downloads",
                  "weights.root", "weights.mirror", "model.weights=random", "path"):
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


def test_controls_need_no_weights(monkeypatch):
    weights.main(config("model.weights=pretrained"))
    assert records()["backbone"]["weights"] == "none" and records()["backbone"]["label"] == "RGB pixels"
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


CONSTRUCTOR = ("AsymmetricCroCo3DStereo(enc_embed_dim=16, enc_depth=1, enc_num_heads=2, dec_embed_dim=16, dec_depth=4, "
               "dec_num_heads=2, pos_embed='RoPE100', head_type='dpt', conf_mode=('exp', 1, inf))")


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
    assert "non-commercial" in capsys.readouterr().out
    (folder / "root" / name).write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(CheckpointError, match=f"{name} is a web page"):
        weights.main(config("model.geometry=dust3r", "weights.root=root"))
    assert records()["geometry"] == record
    assert read_checkpoint("data/weights/geometry/model.safetensors").config == GEOMETRY


def test_the_lpips_trunk_without_its_classifier(folder, monkeypatch):
    with torch.random.fork_rng():
        features = torchvision.models.AlexNet(num_classes=1).features.state_dict(prefix="features.")
    file = folder / "root/alexnet-owt-7be5be79.pth"
    torch.save(features | {"classifier.6.weight": torch.zeros(1, 4096)}, file)
    chosen = config("eval.lpips=alex", "weights.root=root")
    with pytest.raises(FetchError, match="alexnet-owt-7be5be79.pth has SHA-256 .*publisher states 7be5be79"):
        weights.main(chosen)
    label, source = weights.TRUNKS["alex"]
    forged = Source(source.url, source.licence, 1, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(weights.TRUNKS, "alex", (label, forged))
    weights.main(chosen)
    assert load_file("data/weights/lpips_eval/model.safetensors").keys() == features.keys()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert lpips_distance(load_lpips("data/weights/lpips_eval"), images[0], images[1]) > 0
    assert records()["lpips_loss"]["weights"] == "none" and records()["lpips_eval"]["label"] == "LPIPS (AlexNet)"


def test_official_names_and_addresses():
    """The file names of the publishers' own pages; torchvision's as the installed version has them."""
    assert weights.TRUNKS["alex"][1].url == torchvision.models.AlexNet_Weights.DEFAULT.url
    assert weights.TRUNKS["vgg"][1].url == torchvision.models.VGG16_Weights.DEFAULT.url
    assert {config().geometries[name].file for name in ("mast3r", "dust3r")} <= weights.GEOMETRIES.keys()
    for _, source in (*weights.TRUNKS.values(), *weights.GEOMETRIES.values()):
        assert source.url.startswith("https://") and source.licence and source.megabytes > 100
