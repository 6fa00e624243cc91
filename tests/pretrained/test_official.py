"""Files of the official layouts, written here with seeded random weights, must give the network that wrote them."""

import argparse
import io
import json
import random
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from src.mast3r.network import Croco, Mast3r, Mast3rConfig
from src.mast3r.weight_file import CheckpointError
from src.pretrained.official import parse_constructor, read_official
from src.splatt3r.network import Splatt3R
from tests.helpers.official import seeded, splatt3r_content

SMALL = Mast3rConfig(
    enc_embed_dim=128,
    enc_depth=2,
    enc_num_heads=2,
    dec_embed_dim=64,
    dec_depth=4,
    dec_num_heads=1,
    dpt_feature_dim=8,
    dpt_last_dim=4,
    dpt_layer_dims=(4, 4, 8, 8),
    local_features_factor=0.5,
)
SIZES = (
    "enc_embed_dim=128, enc_depth=2, enc_num_heads=2, dec_embed_dim=64, dec_depth=4, dec_num_heads=1, "
    "pos_embed='RoPE100', img_size=(512, 512), depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf)"
)
MAST3R = (
    f"AsymmetricMASt3R({SIZES}, head_type='catmlp+dpt', output_mode='pts3d+desc24', two_confs=True, "
    "patch_embed_cls='ManyAR_PatchEmbed', desc_conf_mode=('exp', 0, inf), landscape_only=True)"
)


def images() -> torch.Tensor:
    return torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(9)) * 2 - 1


@torch.inference_mode()
def assert_same_network(path, original: Mast3r) -> None:
    checkpoint, _ = read_official(path)
    assert checkpoint.config == original.config
    copy = Mast3r(checkpoint.config).eval()
    copy.load_state_dict(checkpoint.state_dict)
    for ours, theirs in zip(copy(*images()), original(*images())):
        assert torch.equal(ours.pts3d, theirs.pts3d) and torch.equal(ours.conf, theirs.conf)
        assert (ours.desc is None) == (theirs.desc is None)
        assert ours.desc is None or torch.equal(ours.desc, theirs.desc)


def write_pth(path, network: torch.nn.Module, constructor: str, **more) -> None:
    torch.save(
        {
            "args": argparse.Namespace(model=constructor, lr=1e-4),
            "model": network.state_dict(),
            "epoch": 3,
            "best_so_far": 0.5,
            **more,
        },
        path,
    )


def test_mast3r_pth(tmp_path):
    network = seeded(Mast3r(SMALL))
    write_pth(tmp_path / "m.pth", network, MAST3R)
    assert_same_network(tmp_path / "m.pth", network)


@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_dust3r_pth(tmp_path, head):
    config = replace(SMALL, head=head, local_features_factor=4.0)
    if head == "linear":  # has no DPT whose sizes could be read
        config = replace(config, dpt_feature_dim=256, dpt_last_dim=128, dpt_layer_dims=(96, 192, 384, 768))
    network = seeded(Mast3r(config))
    write_pth(tmp_path / "d.pth", network, f"AsymmetricCroCo3DStereo({SIZES}, head_type={head!r}, output_mode='pts3d')")
    assert_same_network(tmp_path / "d.pth", network)


def test_hub_mirror(tmp_path):
    network = seeded(Mast3r(SMALL))
    short_names = {alias: value for alias, value in network.state_dict().items() if ".layer_rn." not in alias}
    save_file(short_names, tmp_path / "model.safetensors", {"format": "pt", "x.scratch.layer_rn.0.weight": "alias"})
    keywords = {
        "enc_embed_dim": 128,
        "enc_depth": 2,
        "enc_num_heads": 2,
        "dec_embed_dim": 64,
        "dec_depth": 4,
        "dec_num_heads": 1,
        "pos_embed": "RoPE100",
        "head_type": "catmlp+dpt",
        "output_mode": "pts3d+desc24",
        "two_confs": True,
        "depth_mode": ["exp", -float("inf"), float("inf")],
        "conf_mode": ["exp", 1, float("inf")],
        "desc_conf_mode": ["exp", 0, float("inf")],
    }
    (tmp_path / "config.json").write_text(json.dumps(keywords))
    assert_same_network(tmp_path / "model.safetensors", network)
    for content, words in (
        ("<!DOCTYPE html>", "config.json is no JSON"),
        ("[1]", "config.json holds a list"),
        (None, "place it there"),
    ):
        (tmp_path / "config.json").unlink()
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=words):
            read_official(tmp_path / "model.safetensors")


def test_croco_of_the_public_training_script(tmp_path):
    network = seeded(Croco(SMALL))
    sizes = SIZES.partition(", img_size")[0]
    arguments = argparse.Namespace(model=f"CroCoNet({sizes})")
    torch.save({"model": network.state_dict(), "args": arguments}, tmp_path / "c.pth")
    checkpoint, _ = read_official(tmp_path / "c.pth")
    assert not any(name.startswith("prediction_head.") for name in checkpoint.state_dict)
    for name, value in network.state_dict().items():
        assert name.startswith("prediction_head.") or torch.equal(checkpoint.state_dict[name], value)
    torch.save({"model": network.state_dict()}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="sizes are unknown"):
        read_official(tmp_path / "c.pth")


def test_croco_gives_both_views_its_one_decoder(tmp_path):
    network = seeded(Croco(SMALL))
    keywords = {
        "enc_embed_dim": 128,
        "enc_depth": 2,
        "enc_num_heads": 2,
        "dec_embed_dim": 64,
        "dec_depth": 4,
        "dec_num_heads": 1,
        "pos_embed": "RoPE100",
        "img_size": 224,
    }
    torch.save({"model": network.state_dict(), "croco_kwargs": keywords}, tmp_path / "c.pth")
    checkpoint, _ = read_official(tmp_path / "c.pth")
    copy = seeded(Mast3r(checkpoint.config), 1)
    missing, unexpected = copy.load_state_dict(checkpoint.state_dict, strict=False)
    assert not unexpected and all(name.startswith("downstream_head") for name in missing)
    with torch.inference_mode():
        first, second = images()
        tokens = copy.encode(first), copy.encode(second)
        assert torch.equal(tokens[0], network.encode(first))
        ones, twos = copy.decode(*tokens, (2, 3), (2, 3))
        swapped_ones, swapped_twos = copy.decode(*reversed(tokens), (2, 3), (2, 3))
        assert torch.equal(ones[-1], swapped_twos[-1]) and torch.equal(twos[-1], swapped_ones[-1])
        completing, mask = seeded(Croco(checkpoint.config), 1), torch.tensor([[True, False, True, True, False, False]])
        missing, _ = completing.load_state_dict(checkpoint.state_dict, strict=False)
        assert missing == ["prediction_head.weight", "prediction_head.bias"]
        completing.prediction_head = network.prediction_head
        assert torch.equal(completing(first, second, mask), network(first, second, mask))


def test_splatt3r_checkpoint(tmp_path):
    network = seeded(Splatt3R(SMALL, sh_degree=1, generator=torch.Generator().manual_seed(0)))
    torch.save(splatt3r_content(network, sh_degree=4), tmp_path / "s.ckpt")
    checkpoint, options = read_official(tmp_path / "s.ckpt")
    assert (options.sh_degree, options.use_offsets) == (1, True)
    copy = Splatt3R(checkpoint.config, sh_degree=1, generator=torch.Generator().manual_seed(1)).eval()
    copy.load_geometry(checkpoint.state_dict)
    assert copy.head_loaded
    with torch.inference_mode():
        tokens = [network.encode(image) for image in images()]
        shown = (images() + 1) / 2
        ours, theirs = copy(*tokens, *shown).gaussians, network(*tokens, *shown).gaussians
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_splatt3r_with_unknown_keys_is_refused(tmp_path):
    content = splatt3r_content(seeded(Splatt3R(SMALL, generator=torch.Generator().manual_seed(0))))
    content["state_dict"]["decoder.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "s.ckpt")
    with pytest.raises(CheckpointError, match="decoder.weight"):
        read_official(tmp_path / "s.ckpt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda state: state.pop("encoder.downstream_head1.gaussian_dpt.dpt.head.4.bias"),
            "1 keys missing .*gaussian_dpt",
        ),
        (
            lambda state: state.update({"encoder.downstream_head2.gaussian_dpt.dpt.more": torch.zeros(1)}),
            "1 unexpected",
        ),
        (
            lambda state: state.update({"encoder.downstream_head1.gaussian_dpt.dpt.head.4.bias": torch.zeros(1)}),
            r"head.4.bias has shape \(1,\) and should have \(14,\)",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if ".gaussian_dpt." in name],
            "keys missing .*gaussian_d",
        ),
        (lambda state: state.pop("encoder.patch_embed.proj.weight"), "no tensor encoder.patch_embed.proj.weight"),
        (lambda state: [state.pop(name) for name in list(state) if ".enc_blocks." in name], "enc_depth=0"),
    ],
)
def test_splatt3r_checkpoints_with_faults_are_refused_when_read(tmp_path, change, words):
    content = splatt3r_content(seeded(Splatt3R(SMALL, generator=torch.Generator().manual_seed(0))))
    change(content["state_dict"])
    torch.save(content, tmp_path / "s.ckpt")
    with pytest.raises(CheckpointError, match=f"s.ckpt.*{words}"):
        read_official(tmp_path / "s.ckpt")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "use_offsets"),
        ({"config": 3}, "use_offsets"),
        ([1], "use_offsets"),
        ({"config": {"sh_degree": 1}}, "use_offsets"),
        ({"config": {"use_offsets": True, "sh_degree": 2}}, "2 colour coefficients"),
        ({"config": {"use_offsets": True, "sh_degree": 4}}, r"shape \(14,\) and should have \(23,\)"),
    ],
)
def test_splatt3r_settings_that_say_too_little_or_wrong_are_refused(tmp_path, parameters, words):
    content = splatt3r_content(seeded(Splatt3R(SMALL, generator=torch.Generator().manual_seed(0))))
    torch.save(content | {"hyper_parameters": parameters}, tmp_path / "s.ckpt")
    with pytest.raises(CheckpointError, match=words):
        read_official(tmp_path / "s.ckpt")


class Intruder:
    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_wants_to_run_code_is_refused(tmp_path, capsys):
    torch.save({"model": {}, "args": Intruder()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"builtins.print.*refusing"):
        read_official(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def corrupted(tmp_path, change) -> str:
    network = seeded(Mast3r(SMALL))
    state = network.state_dict()
    change(state)
    torch.save({"args": argparse.Namespace(model=MAST3R), "model": state}, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError) as caught:
        read_official(tmp_path / "broken.pth")
    assert "broken.pth" in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_unexpected_and_misshapen_keys_are_named(tmp_path):
    assert "enc_norm.bias" in corrupted(tmp_path, lambda state: state.pop("enc_norm.bias"))
    assert "extra.weight" in corrupted(tmp_path, lambda state: state.update({"extra.weight": torch.zeros(1)}))
    message = corrupted(tmp_path, lambda state: state.update({"enc_norm.bias": torch.zeros(3)}))
    assert "enc_norm.bias has shape (3,) and should have (128,)" in message


def test_faults_in_the_tensors_that_tell_the_heads_sizes_are_named(tmp_path):
    key, local = "downstream_head1.dpt.head.0.weight", "downstream_head1.head_local_features.fc1.weight"
    assert f"no tensor {key}" in corrupted(tmp_path, lambda state: state.pop(key))
    assert f"{key} has shape (3,)" in corrupted(tmp_path, lambda state: state.update({key: torch.zeros(3)}))
    assert f"{local} has shape (3,)" in corrupted(tmp_path, lambda state: state.update({local: torch.zeros(3)}))


def test_two_names_of_one_tensor_must_agree(tmp_path):
    key = "downstream_head2.dpt.scratch.layer_rn.3.weight"
    message = corrupted(tmp_path, lambda state: state.update({key: state[key] + 1}))
    assert key in message and "downstream_head2.dpt.scratch.layer4_rn.weight" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": [1]}, "list under `model`"),
        ({"model": {"a": 3}}, "int under the name 'a'"),
        ({"model": {3: torch.zeros(1)}}, "under the name 3"),
        ({"args": {"model": MAST3R}, "model": {}}, "sizes are unknown"),
        ({"args": argparse.Namespace(lr=1), "model": {}}, "sizes are unknown"),
        ({"weights": 1}, "no MASt3R, DUSt3R"),
        ({"args": argparse.Namespace(model=MAST3R), "model": {}}, "keys missing"),
        ([1, 2], "list instead of a dictionary"),
        ({"state_dict": [1]}, "list under `state_dict`"),
    ],
)
def test_dictionaries_of_another_form_are_named(tmp_path, content, words):
    if isinstance(content, dict):
        content = {"args": argparse.Namespace(model=MAST3R)} | content
    torch.save(content, tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=f"f.pth.*{words}"):
        read_official(tmp_path / "f.pth")


def test_changed_bytes_end_in_one_sentence(tmp_path):
    write_pth(tmp_path / "m.pth", seeded(Mast3r(SMALL)), MAST3R)
    with zipfile.ZipFile(tmp_path / "m.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    draw, refused = random.Random(0), 0
    for _ in range(40):
        changed = bytearray(members[pickled])
        for position in draw.choices(range(len(changed)), k=3):
            changed[position] = draw.randrange(256)
        with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
            for name, content in members.items():
                archive.writestr(name, bytes(changed) if name == pickled else content)
        (tmp_path / "m.pth").write_bytes(buffer.getvalue())
        try:
            read_official(tmp_path / "m.pth")  # a change within a number nobody reads does no harm
        except CheckpointError:
            refused += 1
    assert refused >= 30


def test_damaged_files_and_web_pages_are_named(tmp_path):
    write_pth(tmp_path / "m.pth", seeded(Mast3r(SMALL)), MAST3R)
    whole = (tmp_path / "m.pth").read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "damaged"),
        (b"", "damaged"),
        (whole[:-10], "damaged"),
        (b"<!DOCTYPE html><p>404", "web page"),
    ):
        (tmp_path / "m.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=f"m.pth.*{words}"):
            read_official(tmp_path / "m.pth")
    for name in ("nowhere.pth", "nowhere.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"{name}; place it there"):
            read_official(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AsymmetricMASt3R(__import__('os'))", "keywords alone"),
        ("AsymmetricMASt3R(a=open('x'))", "no literal"),
        ("not python (", "cannot be read"),
        ("AsymmetricMASt3R(**a)", "keywords alone"),
        ("x", "keywords alone"),
        ("AsymmetricMASt3R(a=-'x')", "no literal"),
        ("AsymmetricMASt3R(a=infinity)", "no literal"),
    ],
)
def test_constructor_strings_are_parsed_not_run(tmp_path, text, words):
    with pytest.raises(CheckpointError, match=words):
        parse_constructor(tmp_path / "f.pth", text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("('exp', -inf, inf)", "('linear', -inf, inf)"), "depth_mode"),
        (("RoPE100", "cosine"), "cosine"),
        (("('exp', 1, inf), head", "('sigmoid', 0, 1), head"), "conf_mode"),
        (("('exp', 1, inf), head", "1, head"), "conf_mode"),
        (("desc_conf_mode=('exp', 0, inf)", "desc_conf_mode=('sigmoid', 0, 1)"), "desc_conf_mode"),
        (("desc_conf_mode=('exp', 0, inf), ", ""), r"desc_conf_mode \('exp', 1, inf\)"),  # then it is that of conf
        (("two_confs=True", "two_confs=True, desc_mode='none'"), "desc_mode"),
        (("RoPE100", "RoPEx"), "RoPEx"),
        (("two_confs=True", "two_confs=False"), "fc2.bias has shape"),
        (("pts3d+desc24", "gaussians"), "gaussians"),
        (("catmlp+dpt", "other"), "'other'"),
        (("enc_depth=2", "enc_depth='2'"), "enc_depth='2'"),
        (("enc_depth=2", "enc_depth=3"), "12 keys missing"),
        (("enc_num_heads=2", "enc_num_heads=3"), "enc_num_heads 3"),
        (("dec_depth=4", "dec_depth=3"), "at least 4"),
    ],
)
def test_other_networks_are_refused(tmp_path, change, words):
    assert change[0] in MAST3R
    write_pth(tmp_path / "m.pth", seeded(Mast3r(SMALL)), MAST3R.replace(*change))
    with pytest.raises(CheckpointError, match=words):
        read_official(tmp_path / "m.pth")
