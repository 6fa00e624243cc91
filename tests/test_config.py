import subprocess
import sys

import pytest

from src.backbones.dinov2 import DINOV2_MODELS
from src.benchmark import AUTOCAST
from src.config import load_config, one_sentence
from src.datasets.scannetpp import FOLDERS
from src.parameters.datasets import SCANNETPP_IMAGES
from src.parameters.rules import ConfigError
from src.pretrained.choices import DINOV2_WIDTHS, LPIPS_TRUNKS
from src.pretrained.trunks import TRUNKS
from src.procedural.choices import SCENE_FAMILIES
from src.procedural.scenes import LAYOUTS
from src.splatt3r.choices import FUSION_MODES, OPTIMIZERS, PRECISIONS, SH_DEGREES
from src.splatt3r.fusion import ADAPTERS
from src.splatting.gaussians import SH_COEFFICIENTS
from src.train import OPTIMIZER_CLASSES
from tests.helpers.repository import ROOT


def test_the_committed_parameters_load():
    config = load_config(root=ROOT)
    assert config.dataset is config.datasets.procedural
    assert config.model.geometry in config.geometries


def test_an_override_changes_one_value():
    assert load_config(["opt.steps=7"], ROOT).opt.steps == 7
    assert load_config(["model.fusion_mode=addition"], ROOT).model.fusion_mode == "add"


def test_masks_of_the_paper_are_for_scenes_in_metres():
    assert load_config(["data.dataset=scannetpp", "eval.masks=splatt3r", "loss.masks=splatt3r"], ROOT)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("opt.stepz=7", "opt.stepz"),  # unknown
        ("+opt.stepz=7", "opt.stepz"),
        ("opt.steps=many", "opt.steps"),  # mistyped
        ("model.identity_init=7x", "model.identity_init"),
        ("opt.steps=0", "opt.steps is 0"),  # out of range
        ("seed=-1", "seed is -1"),
        ("data.dataset=kitti", "choose one of procedural"),
        ("model.geometry=colmap", "choose one of tiny, mast3r, dust3r"),
        ("geometries.mast3r.file=CroCo_V2_ViTLarge_BaseDecoder.pth", "CroCo predicts no points"),
        ("geometries.tiny.initial_head=zeros", "initial_head is 'zeros'; choose one of drawn, points, trained"),
        ("data.crop=square", "data.crop is 'square'; choose one of central, splatt3r"),
        ("weights.dinov2_source=web", "weights.dinov2_source is 'web'; choose one of file, torchhub"),
        ("weights.mirror=/data/weights", "weights.mirror is /data/weights, which is no web address; .* weights.root"),
        ("model.dinov2_model=dinov2_vitx14", "dinov2_vits14"),
        ("model.dinov2_dim=768", "dinov2_vits14 is 384 wide"),
        ("datasets.procedural.resolution=[120,128]", "multiple of the geometry network's patch size 16"),
        ("datasets.procedural.resolution=[128]", r"\[width, height\]"),
        ("datasets.procedural.train_category=cars", "choose one of objects, rooms"),
        ("datasets.procedural.source.families=[]", "families is empty"),
        ("datasets.procedural.source.views=4", "at least 5"),
        ("datasets.procedural.episodes.temporal_gap_min=1", "2 <= min <= max"),
        ("datasets.procedural.episodes.alpha=1.5", "between 0 and 1"),
        ("datasets.co3d.source.subset=half", "choose one of singlesequence, full"),
        ("datasets.co3d.source.on_bad_frame=warn", "choose one of skip, error"),
        ("datasets.co3d.source.max_dropped=20", "max_dropped is 20.0; it must lie between 0 and 1"),
        ("model.freeze_dinov2=false", "needs a frozen"),
        ("model.fusion_mode=sum", "choose one of concat, add, weighted_sum, channel_weights, gated, cross_attention"),
        ("model.fusion_parameters=0", "model.fusion_parameters is 0"),
        ("opt.lr_geometry=0", "opt.lr_geometry is 0.0"),
        ("loss.mse_loss_weight=0 loss.lpips_loss_weight=0", "would train nothing"),
        ("eval.fscore_tau=[]", "eval.fscore_tau is empty"),
        ("benchmark.resolutions=[100]", "multiple of 16"),
        (
            "data.dataset=co3d eval.masks=splatt3r",
            "eval.masks is splatt3r, .* data.dataset=co3d do not have; .* strict",
        ),
        ("data.dataset=transforms loss.masks=splatt3r", "loss.masks is splatt3r, .* data.dataset=transforms"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(override, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(override.split(), ROOT)
    assert "\n" not in str(caught.value)


def test_impossible_combinations_are_refused():
    with pytest.raises(ConfigError, match="fusion_hooks belongs to fusion_site head"):
        load_config(["model.fusion_hooks=[4]", "model.fusion_site=encoder"], ROOT)
    with pytest.raises(ConfigError, match="mast3r_loss_weight is 0.05, but model.backbone=oracle .*trains nothing"):
        load_config(["model.backbone=oracle", "loss.mast3r_loss_weight=0.05"], ROOT)


def test_layers_are_block_numbers_or_shares_of_the_depth():
    assert load_config(["model.backbone_layers=[6,12]"], ROOT).model.backbone_layers == [6, 12]
    found = load_config(["model.backbone_layers=[0.5,1.0]"], ROOT).model.backbone_layers
    assert found == [0.5, 1.0] and all(isinstance(layer, float) for layer in found)
    assert isinstance(load_config(["model.backbone_layers=[6]"], ROOT).model.backbone_layers[0], int)
    with pytest.raises(ConfigError, match="model.backbone_layers"):
        load_config(["model.backbone_layers=[last]"], ROOT)


def test_the_smallest_gap_has_room_for_all_targets():
    gap = [f"datasets.co3d.episodes.{option}" for option in ("view_selection=gap", "temporal_gap_min=4")]
    assert load_config(gap, ROOT).datasets.co3d.episodes.num_targets == 3
    with pytest.raises(ConfigError, match="temporal_gap_min 4 leaves 3 images .*num_targets is 4; raise the gap"):
        load_config([*gap, "datasets.co3d.episodes.num_targets=4"], ROOT)
    load_config([gap[1], "datasets.co3d.episodes.num_targets=4"], ROOT)  # without gap selection it does not matter


def test_a_missing_key_is_named(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  use_offsets: true", "  # use_offsets gone"))
    with pytest.raises(ConfigError, match="model.use_offsets"):
        load_config(root=tmp_path)


def test_no_params_file_says_where_to_run(tmp_path):
    with pytest.raises(ConfigError, match="repository's top folder"):
        load_config(root=tmp_path)


def test_one_sentence_follows_the_cause():
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("inner\nsecond line")
    assert one_sentence(outer) == "params.yaml or an override is wrong: inner."


def test_every_choice_has_its_implementation():
    assert FUSION_MODES == tuple(ADAPTERS)
    assert OPTIMIZERS == tuple(OPTIMIZER_CLASSES) and PRECISIONS == tuple(AUTOCAST)
    assert set(LPIPS_TRUNKS) == set(TRUNKS) and list(DINOV2_WIDTHS) == list(DINOV2_MODELS)
    assert SCENE_FAMILIES == tuple(LAYOUTS) and SCANNETPP_IMAGES == tuple(FOLDERS)
    assert [(degree + 1) ** 2 for degree in SH_DEGREES] == list(SH_COEFFICIENTS)


def test_parameters_are_checked_without_torch():
    code = "import sys; from src.config import load_config; load_config(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_lpips_is_a_list_of_trunks_whatever_it_was_called():
    for value, trunks in (("none", []), ("alex", ["alex"]), ("[alex,vgg]", ["alex", "vgg"])):
        assert load_config([f"eval.lpips={value}"], ROOT).eval.lpips == trunks
    assert load_config(root=ROOT).eval.lpips == ["vgg", "alex"]
    for value, words in (
        ("resnet", "'resnet'; choose one of none, vgg, alex, squeeze"),
        ("", "choose one of none"),
        ("[vgg,vgg]", "name each trunk once"),
        ("[none,vgg]", "'none'; choose one of vgg, alex, squeeze"),
    ):
        with pytest.raises(ConfigError, match=f"eval.lpips is .*{words}"):
            load_config([f"eval.lpips={value}"], ROOT)
