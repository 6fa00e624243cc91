"""Every official file type through the stage `weights`: the network that wrote it comes out; faults are a sentence."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from src import backbones, weights
from src.backbones.dinov2 import DinoV2, source_of
from src.fetching.fetch import FetchError
from src.mast3r.network import Croco, Mast3r, Mast3rConfig
from src.mast3r.weight_file import CheckpointError, load_geometry
from src.splatt3r.network import Splatt3R
from tests.conftest import load_fixture
from tests.helpers.dinov2 import KINDS, TOLERANCE, as_map, meta_state, normalised, photographs, reference_tokens
from tests.helpers.official import seeded, splatt3r_content
from tests.helpers.serving import serving
from tests.helpers.tiny import TINY, assert_outputs, images, tiny_weights
from tests.helpers.weights import HEADS_64, config, torchvision_file

DUST3R = replace(HEADS_64, head="dpt", local_features_factor=4.0)
LINEAR = replace(DUST3R, head="linear", dpt_feature_dim=256, dpt_last_dim=128, dpt_layer_dims=(96, 192, 384, 768))
HUB_MAST3R = "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric/model.safetensors"
HUB_DUST3R = "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt/model.safetensors"

pytestmark = pytest.mark.usefixtures("weights_folder")


def keywords(config: Mast3rConfig) -> dict[str, object]:
    """What the publisher's constructor is told of a network."""
    sizes = ("enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads")
    told = {name: getattr(config, name) for name in sizes} | {"pos_embed": "RoPE100", "head_type": config.head}
    told |= {"depth_mode": ("exp", -float("inf"), float("inf")), "conf_mode": ("exp", 1, float("inf"))}
    if config.head == "catmlp+dpt":
        told |= {"output_mode": f"pts3d+desc{config.desc_dim}", "two_confs": config.two_confs}
        told |= {"desc_conf_mode": ("exp", 0, float("inf"))} if config.two_confs else {}
    return told


def pth(config: Mast3rConfig) -> Callable[[Path, dict[str, Tensor]], None]:
    call = f"Asymmetric({', '.join(f'{name}={value!r}' for name, value in keywords(config).items())})"
    arguments = argparse.Namespace(model=call.replace("Asymmetric", "AsymmetricMASt3R"), lr=1e-4, seed=0)
    return lambda path, state: torch.save({"args": arguments, "model": state, "epoch": 9, "best_so_far": 0.5}, path)


def hub(config: Mast3rConfig, kept: tuple[str, ...] = ("_rn.weight",)) -> Callable[[Path, dict[str, Tensor]], None]:
    """model.safetensors with the names of the DPT pyramids that end as in `kept`, and config.json."""

    def write(path: Path, state: dict[str, Tensor]) -> None:
        stored = {
            name: value.clone()
            for name, value in state.items()
            if "_rn." not in name or any(part in name for part in kept)
        }
        save_file(stored, path, {"format": "pt", "a.scratch.layer_rn.0.weight": "a.scratch.layer1_rn.weight"})
        path.with_name("config.json").write_text(json.dumps(keywords(config)))

    return write


def lightning(path: Path, state: dict[str, Tensor]) -> None:
    content = splatt3r_content(Splatt3R(HEADS_64, generator=torch.Generator()), sh_degree=1)
    others = {name: value for name, value in content["state_dict"].items() if name.startswith("lpips_criterion.")}
    torch.save(content | {"state_dict": {f"encoder.{name}": value for name, value in state.items()} | others}, path)


@dataclass(frozen=True)
class Kind:
    """A file in weights.root, the parameters that ask for it, a network of its layout, who writes it, a tensor's name,
    and which names it keeps of tensors that have two."""

    file: str
    asked: tuple[str, ...]
    network: Callable[[], torch.nn.Module]
    write: Callable[[Path, dict[str, Tensor]], None]
    key: str = "enc_blocks.0.attn.qkv.bias"
    names: tuple[str, ...] = ("_rn.weight",)


def network_of(config: Mast3rConfig) -> Callable[[], Mast3r]:
    return lambda: seeded(Mast3r(config))


GEOMETRIES = {
    "MASt3R": Kind(
        "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric.pth",
        ("model.geometry=mast3r",),
        network_of(HEADS_64),
        pth(HEADS_64),
    ),
    "MASt3R, one confidence": Kind(
        "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric.pth",
        ("model.geometry=mast3r",),
        network_of(replace(HEADS_64, two_confs=False)),
        pth(replace(HEADS_64, two_confs=False)),
    ),
    "MASt3R hub": Kind(
        HUB_MAST3R,
        ("model.geometry=mast3r", f"geometries.mast3r.file={HUB_MAST3R}"),
        network_of(HEADS_64),
        hub(HEADS_64),
    ),
    "MASt3R hub, other names": Kind(
        HUB_MAST3R,
        ("model.geometry=mast3r", f"geometries.mast3r.file={HUB_MAST3R}"),
        network_of(HEADS_64),
        hub(HEADS_64, (".layer_rn.",)),
        names=(".layer_rn.",),
    ),
    "MASt3R hub, both names": Kind(
        HUB_MAST3R,
        ("model.geometry=mast3r", f"geometries.mast3r.file={HUB_MAST3R}"),
        network_of(HEADS_64),
        hub(HEADS_64, ("_rn.",)),
        names=("_rn.",),
    ),
    "DUSt3R": Kind(
        "DUSt3R_ViTLarge_BaseDecoder_512_dpt.pth", ("model.geometry=dust3r",), network_of(DUST3R), pth(DUST3R)
    ),
    "DUSt3R hub": Kind(
        HUB_DUST3R, ("model.geometry=dust3r", f"geometries.dust3r.file={HUB_DUST3R}"), network_of(DUST3R), hub(DUST3R)
    ),
    "DUSt3R linear": Kind(
        "DUSt3R_ViTLarge_BaseDecoder_512_linear.pth", ("model.geometry=dust3r_linear",), network_of(LINEAR), pth(LINEAR)
    ),
    "DUSt3R linear, 224": Kind(
        "DUSt3R_ViTLarge_BaseDecoder_224_linear.pth", ("model.geometry=dust3r_224",), network_of(LINEAR), pth(LINEAR)
    ),
}
OTHERS = {
    "CroCo": Kind(
        "croco.pth",
        ("model.geometry=dust3r", "geometries.dust3r.file=croco.pth"),
        lambda: seeded(Croco(HEADS_64)),
        lambda path, state: torch.save({"model": state, "croco_kwargs": keywords(HEADS_64)}, path),
    ),
    "Splatt3R": Kind(
        "epoch=19-step=1200.ckpt",
        ("model.geometry=splatt3r",),
        lambda: seeded(Splatt3R(HEADS_64, generator=torch.Generator())),
        lightning,
        "downstream_head2.gaussian_dpt.dpt.head.4.bias",
    ),
    **{
        trunk: Kind(
            weights.TRUNKS[trunk][1].name,
            (f"eval.lpips={trunk}",),
            lambda trunk=trunk: trunk,
            lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
            "features.0.bias",
        )
        for trunk in weights.TRUNKS
    },
}


class Published:
    """Random weights as Meta publishes them."""

    def __init__(self, model: str):
        self.model = model

    def state_dict(self) -> dict[str, Tensor]:
        return meta_state(64, 2, **KINDS[self.model][1])


BACKBONES = {
    model: Kind(
        source_of(model).name,
        ("model.backbone=dinov2", f"model.dinov2_model={model}", "model.weights=pretrained"),
        lambda model=model: Published(model),
        lambda path, state: torch.save(state, path),
        "cls_token",
    )
    for model in KINDS
}
LAYOUTS = {
    name: kind
    for name, kind in (GEOMETRIES | OTHERS | BACKBONES).items()
    if "," not in name and "vitb" not in name and "vitl" not in name
}  # one kind of each


@pytest.fixture(autouse=True)
def small_and_unnamed(monkeypatch):
    """DINOv2 of another size under the published names, trunks without the checksums that random weights cannot have,
    and one thread throughout."""
    monkeypatch.setattr(weights, "fix_computation", lambda threads: None)
    monkeypatch.setitem(
        backbones.FAMILIES,
        "dinov2",
        lambda model, seed: DinoV2(model.dinov2_model, **KINDS[model.dinov2_model][0]),
    )
    for trunk, (label, source) in weights.TRUNKS.items():
        monkeypatch.setitem(weights.TRUNKS, trunk, (label, replace(source, sha256="")))


def place(kind: Kind, state: dict[str, Tensor] | None = None) -> Path:
    """The kind's file in the folder `root`, with its network's own tensors or those of `state`."""
    path = Path("root") / kind.file
    path.parent.mkdir(parents=True, exist_ok=True)
    kind.write(path, state or tensors(kind))
    return path


def tensors(kind: Kind) -> dict[str, Tensor]:
    network = kind.network()
    if isinstance(network, str):
        return torchvision_file(Path("root/trunk.pth"), network).state_dict(prefix="features.")
    return dict(network.state_dict())


chosen = cache(config)  # reading the parameters takes longer than converting such small files


def run(kind: Kind) -> None:
    weights.main(chosen(*kind.asked, "weights.root=root"))


@torch.inference_mode()
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_geometry_network_comes_out_as_it_was_written(name):
    place(kind := GEOMETRIES[name])
    run(kind)
    pair = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(9)) * 2 - 1
    for ours, theirs in zip(load_geometry(Path("data/weights/geometry"))(*pair), kind.network()(*pair)):
        for value, wanted in zip(vars(ours).values(), vars(theirs).values()):
            assert wanted is None and value is None or torch.equal(value, wanted)


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name.startswith("MASt3R") and "one" not in name])
def test_the_references_weights_give_the_references_outputs_from_every_file(name):
    published, inputs = Mast3rConfig(**TINY), load_fixture("mast3r/tiny_landscape.safetensors")[0]
    write = pth(published) if name == "MASt3R" else hub(published, GEOMETRIES[name].names)
    place(kind := replace(GEOMETRIES[name], write=write), tiny_weights())
    run(kind)
    assert_outputs(load_geometry(Path("data/weights/geometry"))(images(inputs, 1), images(inputs, 2)), inputs)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_comes_out_as_it_was_written(name):
    kind, heads = BACKBONES[name], KINDS[name][0]["num_heads"]
    path = place(kind)
    run(kind)
    shown = photographs(308, 224, batch=1)
    (wanted,) = reference_tokens(tensors(kind), normalised(shown), heads, [2])
    model = chosen(*kind.asked).model
    torch.testing.assert_close(
        backbones.load_backbone(model, "data/weights/backbone")(shown), as_map(wanted, 22), **TOLERANCE
    )
    by_meta = Path("data/weights/backbone/model.safetensors").read_bytes()
    network = backbones.build_backbone(model, 0)
    network.load(tensors(kind), str(path))
    save_file(network.network.state_dict(), "root/timms.safetensors", {"format": "pt"})  # as on timm's hub pages
    weights.main(config(*kind.asked, "model.weights=root/timms.safetensors"))
    assert Path("data/weights/backbone/model.safetensors").read_bytes() == by_meta


def test_the_hubs_two_files_come_from_a_mirror_under_one_licence(capsys):
    kind = GEOMETRIES["MASt3R hub"]
    path = place(kind)
    sent = {
        f"{kind.file.rpartition('/')[0]}/{part}": path.with_name(part).read_bytes()
        for part in ("config.json", "model.safetensors")
    }
    with serving(**sent) as server:
        weights.main(config(*kind.asked, f"weights.mirror={server.url}"))
        assert [asked for asked, _ in server.requests] == [f"/{name}" for name in sent]
    assert capsys.readouterr().out.count("licence: CC BY-NC-SA 4.0 (Naver)") == 1
    assert load_geometry(Path("data/weights/geometry")).config == HEADS_64
    path.with_name("config.json").unlink()
    with pytest.raises(FetchError, match="needs naver/MASt3R_.*/config.json, which is not in weights.root"):
        run(kind)


def test_a_trunk_that_training_and_scores_share_is_read_once(capsys):
    place(OTHERS["squeeze"])
    weights.main(
        config("eval.lpips=[squeeze]", "loss.lpips_network=squeeze", "loss.lpips_loss_weight=0.1", "weights.root=root")
    )
    assert capsys.readouterr().out.count("licence: BSD-3-Clause") == 1
    files = [
        Path(f"data/weights/{name}/model.safetensors").read_bytes() for name in ("lpips_loss", "lpips_eval/squeeze")
    ]
    assert files[0] == files[1]


def refusal(kind: Kind) -> str:
    """What is said of the kind's file: one sentence that names it; nothing was put in its place."""
    with pytest.raises(CheckpointError) as caught:
        run(kind)
    message = str(caught.value)
    assert f"root/{kind.file}" in message and "\n" not in message and message.endswith(".")
    assert not list(Path("data/weights").glob("*/model.safetensors")) or "geometry" not in kind.asked[0]
    return message


@pytest.mark.parametrize("name", LAYOUTS)
def test_missing_unexpected_and_misshapen_tensors_are_named(name):
    kind = LAYOUTS[name]
    state = tensors(kind)
    place(kind, {other: tensor for other, tensor in state.items() if other != kind.key})
    assert kind.key in (message := refusal(kind)) and "1 " in message and "missing" in message
    place(kind, state | {"zzz.weight": torch.zeros(1)})
    assert "zzz.weight" in (message := refusal(kind)) and ("1 unexpected" in message or "1 tensors are left" in message)
    place(kind, state | {kind.key: torch.zeros(7)})
    assert kind.key in (message := refusal(kind)) and "(7,)" in message
    place(kind, state | {kind.key: state[kind.key][..., :1]})  # would broadcast
    assert kind.key in refusal(kind)


PAGE, POINTER = b"\n<!DOCTYPE html><html><title>Sign in</title>", b"version https://git-lfs.github.com/spec/v1\noid sha"


@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_files_and_what_downloads_leave_instead_are_named(name):
    kind = LAYOUTS[name]
    whole = (path := place(kind)).read_bytes()
    for content, words in (
        (PAGE, "is a web page"),
        (POINTER, "is a Git LFS pointer"),
        (b"", ""),
        (whole[:-10], ""),
        (whole[: len(whole) // 2], ""),
        (whole[:100], ""),
    ):
        path.write_bytes(content)
        message = refusal(kind)
        assert words in message and ("fetch" in message or words == "is a Git LFS pointer"), message
