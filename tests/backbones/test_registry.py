from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from src.backbones import FAMILIES, build_backbone
from src.backbones.base import Backbone
from src.backbones.croco import CrocoBackbone
from src.backbones.dinov2 import DINOV2_MODELS, DinoV2
from src.backbones.registry import FEATURELESS, refuse_backbone
from src.backbones.timm_models import Timm
from src.config import load_config
from src.mast3r.network import Mast3rConfig
from src.pretrained.state_dicts import Described, write_backbone
from src.reproducible.seeds import seed_of

IMAGES = torch.rand(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))


def section(backbone: str, **changes) -> SimpleNamespace:
    """The keys of params.yaml's section `model` that backbones read."""
    return SimpleNamespace(
        **{"backbone": backbone, "dinov2_model": "dinov2_vits14", "dinov2_dim": None, "backbone_layers": None} | changes
    )


ARGUMENTS = {"timm:": "timm:vit_tiny_patch16_224", "clip:": "clip:vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"}
SMALL_CROCO = Mast3rConfig(enc_embed_dim=32, enc_depth=2, enc_num_heads=2)


@pytest.fixture()
def small_croco(monkeypatch):
    """CroCo at a size that tests can afford; the published one has 303 M parameters."""
    monkeypatch.setitem(FAMILIES, "croco", lambda model, seed: CrocoBackbone(model.backbone_layers, seed, SMALL_CROCO))


@pytest.mark.parametrize(
    "name", [ARGUMENTS.get(name, name) for name in FAMILIES if name not in ("file:", "truth", "truth:")]
)
def test_every_family_keeps_the_interface(name, small_croco):
    backbone = build_backbone(section(name), seed=0)
    features = backbone(IMAGES)
    gh, gw = backbone.grid(IMAGES)
    assert backbone.name == {"dinov2": "dinov2_vits14"}.get(name, name)
    assert features.shape == (1, backbone.channels, gh, gw) and not features.requires_grad
    assert gh == -(-28 // backbone.patch_size) and gw == -(-42 // backbone.patch_size)
    assert backbone(IMAGES, (2, 3)).shape == (1, backbone.channels, 2, 3)
    assert backbone.title and backbone.licence and len(backbone.mean) == len(backbone.std) == 3
    assert (backbone.source is None) == (backbone.num_parameters == 0 or name == "random") and not backbone.gated
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(parameter.is_meta for parameter in backbone.parameters())


@pytest.mark.parametrize("name", ["dinov2", "croco", "clip", "shuffled", "random"])
def test_layers_are_numbers_or_shares_of_the_depth_in_every_family(name, small_croco):
    whole = build_backbone(section(name), seed=None)
    for layers in ([1, 2], [0.5, 1.0]):
        several = build_backbone(section(name, backbone_layers=layers), seed=None)
        assert several.channels == 2 * whole.channels and "block" in several.title
    with pytest.raises(ValueError, match="model.backbone_layers is .99.; give increasing block numbers"):
        build_backbone(section(name, backbone_layers=[99]), seed=None)


def test_without_a_seed_large_networks_are_names_and_shapes_alone():
    for name in ("dinov2", "croco"):
        network = build_backbone(section(name, dinov2_model="dinov2_vitg14"), seed=None).network
        assert all(parameter.is_meta for parameter in network.parameters())


def student(path, architecture: str = "dinov2_vits14", **statistics) -> Backbone:
    """A fine-tuned network and its file."""
    network = DinoV2(seed=11) if architecture == "dinov2_vits14" else Timm(architecture, seed=11)
    write_backbone(path, network.network.state_dict(), Described(architecture, **statistics))
    return network


@pytest.mark.parametrize("architecture", ["dinov2_vits14", "test_vit", "test_convnext"])
def test_a_file_says_which_network_it_holds(tmp_path, architecture):
    trained = student(tmp_path / "mine.safetensors", architecture, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    backbone = build_backbone(load_config([f"model.backbone=file:{tmp_path}/mine.safetensors"]).model, seed=0)
    shown = f"{tmp_path.name}/mine.safetensors"
    assert (backbone.name, backbone.own_weights) == (f"file:{shown}", str(tmp_path / "mine.safetensors"))
    assert backbone.label("file") == f"{trained.title}, fine-tuned ({shown})"
    assert (backbone.mean, backbone.std, backbone.licence) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "unknown")
    backbone.load(backbone.read(backbone.own_weights), "mine.safetensors")
    own, trained.mean, trained.std = trained.mean, backbone.mean, backbone.std
    assert torch.equal(backbone(IMAGES), trained(IMAGES))
    write_backbone(tmp_path / "again.safetensors", trained.network.state_dict(), Described(architecture))
    plain = build_backbone(load_config([f"model.backbone=file:{tmp_path}/again.safetensors"]).model, seed=0)
    assert plain.mean == own  # the architecture's


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    labels = []
    for name in ("vits14", "from_vitl14"):
        student(tmp_path / name / "model.safetensors", "test_vit")
        backbone = build_backbone(
            load_config([f"model.backbone=file:{tmp_path}/{name}/model.safetensors"]).model, seed=0
        )
        labels.append(backbone.label("file"))
    assert labels == [f"test_vit, fine-tuned ({name}/model.safetensors)" for name in ("vits14", "from_vitl14")]


@pytest.mark.parametrize("architecture", ["none", "rgb", "file:mine.safetensors", "constant"])
def test_a_file_cannot_name_what_has_no_weights(tmp_path, architecture):
    save_file({"weight": torch.ones(1)}, tmp_path / "mine.safetensors", {"architecture": architecture})
    with pytest.raises(
        ValueError, match=f"mine.safetensors names the architecture '{architecture}', which has no weights"
    ):
        build_backbone(load_config([f"model.backbone=file:{tmp_path}/mine.safetensors"]).model, seed=0)


def test_the_section_of_params_yaml_is_what_build_takes():
    chosen = ["model.backbone=dinov2", "model.dinov2_model=dinov2_vits14_reg", "model.backbone_layers=[6,12]"]
    backbone = build_backbone(load_config(chosen).model, seed=0)
    assert (backbone.channels, backbone.title) == (768, "DINOv2 ViT-S/14 with registers, block 6+12")


def test_untrained_weights_come_from_the_seed():
    first, again, other = (build_backbone(section("dinov2"), seed).network.pos_embed for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first, DinoV2(seed=seed_of(1, "backbone")).network.pos_embed)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dinov9", "did you mean dinov2"),
        ("shufled", "did you mean shuffled"),
        ("timm", "timm:<name>"),
        ("timm:", "timm:<name>"),
        ("xyzzy", "Known are"),
        ("clip:", "clip:<name>"),
        ("orcale", "did you mean oracle"),
        (
            "dinov2:vits14",
            "Known are none, dinov2, croco, clip, clip:<name>, timm:<name>, alexnet, vgg16, file:<path>, random, "
            "shuffled, constant, rgb, oracle",
        ),
    ],
)
def test_unknown_names_list_the_known_ones(name, words):
    with pytest.raises(ValueError, match=f"model.backbone is '{name}'; .*{words}"):
        build_backbone(section(name), seed=0)


@pytest.mark.parametrize("name", ["dinov2", "shuffled", "constant"])
def test_a_wrong_width_is_refused(name):
    with pytest.raises(ValueError, match="model.dinov2_dim is 768, but dinov2_vits14 is 384 wide"):
        build_backbone(section(name, dinov2_dim=768), seed=0)


def test_a_constant_is_as_wide_as_what_it_stands_beside():
    assert (
        build_backbone(section("constant", dinov2_model="dinov2_vitb14", backbone_layers=[6, 12]), seed=0).channels
        == 2 * 768
    )


@pytest.mark.parametrize(
    ("name", "model"),
    [(name, "dinov2_vits14") for name in FAMILIES if not name.endswith(":")]
    + [("dinov2", model) for model in DINOV2_MODELS],
)
def test_what_is_refused_unbuilt_is_what_the_built_network_refuses(name, model):
    """The last block is accepted, the next one is not; where there are no blocks to choose, anything goes."""
    network = build_backbone(section(name, dinov2_model=model), None)
    assert (network.channels == 0) == (name in FEATURELESS)
    if not hasattr(network, "network"):
        return refuse_backbone(section(name, dinov2_model=model, backbone_layers=[99]))
    inner = network.inner if name == "shuffled" else network
    (depth,) = inner.blocks
    refuse_backbone(section(name, dinov2_model=model, backbone_layers=[depth]))
    with pytest.raises(ValueError, match=f"from 1 to {depth}"):
        refuse_backbone(section(name, dinov2_model=model, backbone_layers=[depth + 1]))


def test_a_name_with_a_colon_is_refused_by_building_it():
    refuse_backbone(section(ARGUMENTS["timm:"]))
    with pytest.raises(ValueError, match="near are"):
        refuse_backbone(section("timm:resnet19"))
