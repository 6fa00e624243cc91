import json
from dataclasses import replace

import pytest
import torch

from src.mast3r.network import DUST3R_DPT, DUST3R_LINEAR, MAST3R, Croco, Mast3r, Mast3rConfig, PointMap
from tests.conftest import fixture_path, load_fixture
from tests.helpers.tiny import TINY, assert_close, assert_outputs, images, tiny_weights, weights_of


def tiny_network() -> Mast3r:
    network = Mast3r(Mast3rConfig(**TINY))
    network.load_state_dict(tiny_weights())
    return network.eval()


@pytest.mark.parametrize("case", ["landscape", "portrait"])
@torch.inference_mode()
def test_outputs_equal_the_reference_networks(case):
    tensors, _ = load_fixture(f"mast3r/tiny_{case}.safetensors")
    assert_outputs(tiny_network()(images(tensors, 1), images(tensors, 2)), tensors)


def test_token_lists_of_unequal_views_equal_the_reference_networks():
    tensors, _ = load_fixture("mast3r/tiny_portrait.safetensors")
    network, pair = tiny_network(), [images(tensors, view) for view in (1, 2)]
    with torch.inference_mode():
        lists = network.decode(*map(network.encode, pair), *map(network.grid, pair))
    for view, tokens in enumerate(lists, 1):
        for number in (0, 12):
            assert_close(tokens[number], tensors[f"inter.dec{view}.{number}"], f"dec{view}.{number}")


@torch.inference_mode()
def test_mixed_orientations_equal_the_reference_networks():
    """The reference trains on buffers in which portrait images lie on their side; each pair upright gives the same."""
    tensors, _ = load_fixture("mast3r/tiny_mixed_ar.safetensors")
    network, shapes = tiny_network(), [tensors[f"input.true_shape{view}"] for view in (1, 2)]
    maps: list[list[PointMap]] = [[], []]
    for b in range(len(shapes[0])):
        portrait = [bool(shape[b, 0] > shape[b, 1]) for shape in shapes]
        buffers = [images(tensors, view)[b : b + 1] for view in (1, 2)]
        upright = [buffer.mT if on_its_side else buffer for buffer, on_its_side in zip(buffers, portrait)]
        for view, found in enumerate(network(*upright)):
            maps[view].append(found.map(lambda x: x.transpose(1, 2)) if portrait[view] else found)
    names = ("pts3d", "conf", "desc", "desc_conf")
    stacked = [PointMap(*(torch.cat([getattr(each, name) for each in view]) for name in names)) for view in maps]
    assert_outputs(stacked, tensors)


@torch.inference_mode()
def test_every_layer_equals_the_reference_networks():
    tensors, _ = load_fixture("mast3r/tiny_landscape.safetensors")
    network, captured = tiny_network(), {}

    def capture(name, module):
        def hook(_, __, output):  # returning anything would replace the output
            captured.setdefault(name, output)

        module.register_forward_hook(hook)

    capture("patch_tokens1", network.patch_embed)
    for number, block in enumerate(network.enc_blocks):
        capture(f"enc_block{number}.out1", block)
    scratch = network.downstream_head1.dpt.scratch
    for number, layer in enumerate(scratch.layer_rn):
        capture(f"head1.layer_rn{number}", layer)
    for number in (4, 3, 2):
        capture(f"head1.refinenet{number}", getattr(scratch, f"refinenet{number}"))
    capture("head1.dpt_raw", network.downstream_head1.dpt)
    capture("head1.local_mlp_token5", network.downstream_head1.head_local_features)
    first, second = images(tensors, 1), images(tensors, 2)
    network(first, second)
    batch = len(first)
    for name, value in captured.items():
        value = value[:batch]  # both views are encoded at once
        if name == "head1.local_mlp_token5":
            value = value[:, 5]
        elif name.startswith("head1"):
            value = value[0]
        assert_close(value, tensors[f"inter.{name}"].reshape(value.shape), name)
    grid = network.grid(first)
    lists = network.decode(network.encode(first), network.encode(second), grid, grid)
    for view, tokens in enumerate(lists, 1):
        for number, value in enumerate(tokens):
            assert_close(value, tensors[f"inter.dec{view}.{number}"], f"dec{view}.{number}")


@torch.inference_mode()
def test_linear_head_equals_the_reference_network():
    tensors, _ = load_fixture("mast3r/tiny_dust3r_linear.safetensors")
    inputs, _ = load_fixture("mast3r/tiny_landscape.safetensors")
    network = Mast3r(Mast3rConfig(**TINY | {"head": "linear"}))
    state = {name: value for name, value in tiny_weights().items() if not name.startswith("downstream")}
    state |= weights_of(tensors)
    network.load_state_dict(state)
    assert_outputs(network.eval()(images(inputs, 1)[:1], images(inputs, 2)[:1]), tensors)


@torch.inference_mode()
def test_croco_completion_equals_the_reference_network():
    tensors, _ = load_fixture("mast3r/tiny_croco.safetensors")
    inputs, _ = load_fixture("mast3r/tiny_landscape.safetensors")
    network = Croco(Mast3rConfig(**TINY))
    state = {
        name: value for name, value in tiny_weights().items() if not name.startswith(("downstream", "dec_blocks2"))
    } | weights_of(tensors)
    network.load_state_dict(state)
    mask = tensors["input.mask1"].bool()
    output = network.eval()(*(images(inputs, view)[: len(mask), ..., :64] for view in (1, 2)), mask)
    expected = [value for name, value in tensors.items() if name.startswith("output") and value.shape == output.shape]
    assert len(expected) == 1
    assert_close(output, expected[0], "patches")


@pytest.mark.parametrize(
    ("name", "network", "config"),
    [
        ("mast3r_512_catmlpdpt", Mast3r, MAST3R),
        ("dust3r_512_dpt", Mast3r, DUST3R_DPT),
        ("dust3r_linear", Mast3r, DUST3R_LINEAR),
        ("croco_v2_vitl_based", Croco, MAST3R),
    ],
)
def test_full_size_networks_have_exactly_the_official_keys_and_shapes(name, network, config):
    official = json.loads(fixture_path("mast3r/official_state_dict_keys.json").read_text())[name]
    with torch.device("meta"):
        ours = network(config).state_dict()
    assert {key: list(value.shape) for key, value in ours.items()} == official


@pytest.mark.parametrize(
    ("network", "config", "count"),
    [
        (Mast3r, MAST3R, 688_638_856),
        (Mast3r, DUST3R_DPT, 571_171_208),
        (Mast3r, DUST3R_LINEAR, 532_342_784),
        (Croco, MAST3R, 417_918_720),
    ],
)
def test_parameter_counts_are_the_published_ones(network, config, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network(config).parameters()) == count


SMALL = Mast3rConfig(**TINY | {"dec_depth": 4, "head": "dpt"})


def small_network(seed: int = 0) -> Mast3r:
    network = Mast3r(SMALL)
    network.init_weights(torch.Generator().manual_seed(seed))
    return network


def test_either_name_of_an_aliased_tensor_is_enough():
    network = small_network()
    state = network.state_dict()
    for kept, dropped in (("layer_rn.", "_rn.weight"), ("_rn.weight", "layer_rn.")):
        part = {name: value for name, value in state.items() if not (dropped in name and kept not in name)}
        assert len(part) == len(state) - 8
        copy = small_network(1)
        copy.load_state_dict(part)
        assert all(torch.equal(copy.state_dict()[name], value) for name, value in state.items())
    with pytest.raises(RuntimeError, match="enc_norm.bias"):
        copy.load_state_dict({name: value for name, value in state.items() if name != "enc_norm.bias"})


def test_checkpointing_changes_memory_not_gradients():
    generator = torch.Generator().manual_seed(3)
    pair = [torch.rand(1, 3, 32, 48, generator=generator) * 2 - 1 for _ in range(2)]
    gradients, runs, kept = [], [], []
    for switch in (False, True):
        network = small_network()
        network.gradient_checkpointing = switch
        blocks = [*network.enc_blocks, *network.dec_blocks, *network.dec_blocks2]
        counts = dict.fromkeys(blocks, 0)
        for block in blocks:
            block.register_forward_pre_hook(lambda block, _: counts.update({block: counts[block] + 1}))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            first, second = network(*pair)
        (first.pts3d.square().mean() + second.conf.mean()).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
        runs.append(set(counts.values()))
        kept.append(sum(sizes))
    assert runs == [{1}, {2}]  # every block once more, in the backward pass
    assert kept[1] < 0.7 * kept[0]  # elements kept for it; those of the heads remain
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 100
    assert all(torch.equal(gradients[1][name], gradient) for name, gradient in gradients[0].items())


def test_sizes_given_by_a_ratio_are_whole_again():
    for encoder, hidden in ((4, 61), (1768, 7168)):  # 28 * (61 / 28) is less than 61
        config = Mast3rConfig(
            **TINY | {"enc_embed_dim": encoder, "enc_num_heads": 1, "local_features_factor": hidden / (encoder + 24)}
        )
        with torch.device("meta"):
            assert Mast3r(config).downstream_head1.head_local_features.fc1.out_features == hidden


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(5)
    one = small_network(7).state_dict()
    torch.manual_seed(6)
    two = small_network(7).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["patch_embed.proj.weight"], small_network(8).state_dict()["patch_embed.proj.weight"])


def test_initial_weights_are_the_same_in_every_memory_layout():
    rows = small_network(7).state_dict()
    network = Mast3r(SMALL).to(memory_format=torch.channels_last)
    network.init_weights(torch.Generator().manual_seed(7))
    assert all(torch.equal(rows[name], value) for name, value in network.state_dict().items())


def test_linear_layers_and_patches_start_xavier_uniform():
    state = small_network().state_dict()
    for name in ("patch_embed.proj", "enc_blocks.0.attn.qkv", "decoder_embed", "dec_blocks2.3.mlp.fc2"):
        rows = state[f"{name}.weight"].flatten(1)
        bound = (6 / sum(rows.shape)) ** 0.5
        assert 0.98 * bound < rows.abs().max() <= bound and rows.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not state[f"{name}.bias"].any()


def test_heads_stay_in_float32_under_autocast():
    network = small_network()
    pair = [torch.zeros(1, 3, 32, 32)] * 2
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        seen = []
        network.downstream_head1.dpt.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
        network(*pair)
        network.heads_in_autocast = True
        assert network(*pair)[0].pts3d.dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_every_head_computes_on_half_precision_tokens_as_it_does_outside(precision):
    network = Mast3r(replace(SMALL, head="catmlp+dpt"))
    network.init_weights(torch.Generator().manual_seed(0))
    pair = [
        torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1 for size in ((48, 32), (32, 48))
    ]
    grids = [network.grid(image) for image in pair]
    with torch.autocast("cpu", precision):
        lists = network.decode(*map(network.encode, pair), *grids)
        inside = [network.head(view + 1, lists[view], grids[view]) for view in range(2)]
    for view, found in enumerate(inside):
        assert lists[view][0].dtype == precision
        wanted = network.head(view + 1, [tokens.float() for tokens in lists[view]], grids[view])
        assert all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(wanted).values()))


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_mixed_precision_stays_near_float32_with_heads_in_it(precision, tolerance):
    network = small_network()
    pair = [
        torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1 for size in ((64, 32), (32, 48))
    ]
    with torch.no_grad():
        exact = network(*pair)
        with torch.autocast("cpu", precision):
            assert network.encode(pair[0]).dtype == precision
            mixed = network(*pair)
    for ours, theirs in zip(mixed, exact):
        assert ours.pts3d.dtype == ours.conf.dtype == torch.float32
        error = (ours.pts3d - theirs.pts3d).abs().max() / theirs.pts3d.abs().max()
        assert 1e-6 < error < tolerance


def test_points_are_activated_in_float32_whatever_the_head_computes_in():
    network = Mast3r(replace(SMALL, head="linear"))
    network.init_weights(torch.Generator().manual_seed(0))
    network.heads_in_autocast = True
    pair = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        for output in network(*pair):
            assert not torch.equal(output.pts3d, output.pts3d.bfloat16().float())
            assert not torch.equal(output.conf, output.conf.bfloat16().float())


def test_image_sizes_must_fit_the_patches():
    with pytest.raises(ValueError, match="100x64.*multiples of 16"):
        small_network().encode(torch.zeros(1, 3, 64, 100))


def test_an_unknown_head_and_too_shallow_a_decoder_are_refused():
    with pytest.raises(ValueError, match="catmlp"):
        Mast3rConfig(head="dpt2")
    with pytest.raises(ValueError, match="at least 4"):
        Mast3rConfig(dec_depth=3)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (dict(enc_num_heads=3), "enc_embed_dim is 1024 and enc_num_heads 3"),
        (dict(dec_num_heads=0), "dec_num_heads 0"),
        (dict(dec_embed_dim=30, dec_num_heads=5), "multiple of 4"),
    ],
)
def test_widths_that_heads_cannot_share_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        Mast3rConfig(**sizes)
