"""Training the bundled network: its schedule, its held-out errors, and a run that is cut short and goes on."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from src import pretrain
from src.mast3r.network import Mast3r
from src.mast3r.weight_file import load_geometry, read_checkpoint, write_geometry
from src.pretrain import ause, learning_rate, pair_errors, relative_errors

PARAMS = {
    "seed": 1,
    "threads": 1,
    "start": None,
    "stream": {
        "families": ["objects", "rooms"],
        "first_seed": 100,
        "held_out_seed": 50,
        "held_out_scenes": 1,
        "views": 3,
        "resolution": [32, 32],
        "samples": 1,
        "bounces": 2,
        "initial_scenes": 2,
        "scenes_per_step": 0.5,
        "min_overlap": 0.05,
    },
    "network": {
        "enc_embed_dim": 24,
        "enc_depth": 1,
        "enc_num_heads": 2,
        "dec_embed_dim": 24,
        "dec_depth": 4,
        "dec_num_heads": 2,
        "head": "dpt",
        "dpt_feature_dim": 8,
        "dpt_last_dim": 8,
        "dpt_layer_dims": [8, 8, 8, 8],
    },
    "optimiser": {
        "steps": 4,
        "batch_size": 2,
        "lr": 0.001,
        "weight_decay": 0.02,
        "warmup": 2,
        "cooldown": 2,
        "clip": 1.0,
        "log_every": 2,
        "checkpoint_every": 2,
    },
    "objective": {
        "confidence_alpha": 0.2,
        "pixel_step": 2,
        "matching_weight": 0.1,
        "matching_heads": [[[0, 1]], [[2, 0], [1, 1]]],
    },
}


def test_the_learning_rate_warms_up_stays_and_falls_to_almost_nothing():
    how = OmegaConf.create({"lr": 0.5, "warmup": 10, "steps": 110, "cooldown": 49})
    rates = [learning_rate(step, how) for step in range(110)]
    assert rates[:10] == pytest.approx([0.05 * k for k in range(1, 11)])
    assert rates[10:61] == [0.5] * 51
    assert rates[61:] == pytest.approx([0.01 * k for k in range(49, 0, -1)])


@pytest.mark.parametrize(("step", "row", "column"), [(1, 0, 0), (2, 0, 1), (2, 1, 0), (3, 2, 1)])
def test_a_thinned_network_computes_some_of_the_same_pixels(step, row, column):
    network = pretrain.starting_network(OmegaConf.create(PARAMS), torch.device("cpu"))
    images = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network(*images)
        with pretrain.thinned(network, step, row, column):
            some = network(*images)
        again = network(*images)
    for before, thin, after in zip(whole, some, again):
        torch.testing.assert_close(thin.pts3d, before.pts3d[:, row::step, column::step])
        torch.testing.assert_close(thin.conf, before.conf[:, row::step, column::step])
        assert torch.equal(after.pts3d, before.pts3d)


@pytest.mark.parametrize("head", ["linear", "catmlp+dpt"])
def test_heads_that_compute_whole_patches_are_trained_at_every_pixel(head):
    params = OmegaConf.create(PARAMS | {"network": PARAMS["network"] | {"head": head}})
    with pytest.raises(ValueError, match="pixel_step is 2, but network.head .* set pixel_step to 1"):
        pretrain.starting_network(params, torch.device("cpu"))
    params.objective.pixel_step = 1
    network = pretrain.starting_network(params, torch.device("cpu"))
    batch = {
        "images": torch.rand(1, 2, 3, 32, 32),
        "points": torch.rand(1, 2, 32, 32, 3) + 1,
        "valid": torch.ones(1, 2, 32, 32, dtype=torch.bool),
        "matches": torch.full((1, 2, 2, 2, 2, 2), 0.25),
    }
    assert pretrain.objective(network, batch, params.objective, (0, 0)).isfinite()


def test_relative_errors_are_distances_over_the_true_distance_from_camera_1():
    truth = torch.tensor([[0.0, 3.0, 4.0], [1.0, 0.0, 0.0]])
    found = relative_errors(truth + torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.5, 0.0]]), truth)
    torch.testing.assert_close(found, torch.tensor([1 / 5, 0.5]))


def test_ause_is_the_area_between_two_sparsification_curves():
    rng = np.random.default_rng(0)
    errors, confidence = rng.exponential(size=200), rng.random(200)

    def curve(keys):
        ranked = [error for _, error in sorted(zip(keys, errors))]  # kept first, removed from the end
        return [np.mean(ranked[: round(200 * (1 - k / 20))]) for k in range(20)]

    expected = np.mean(np.subtract(curve(-confidence), curve(errors))) / errors.mean()
    found = ause(torch.from_numpy(errors), torch.from_numpy(confidence))
    assert found == pytest.approx(expected, rel=1e-9)
    assert ause(torch.from_numpy(errors), torch.from_numpy(-errors)) == pytest.approx(0, abs=1e-12)


def test_pair_errors_take_one_scale_out_of_both_views():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 2, 8, 8, 3, generator=generator) + 1
    valid = torch.rand(1, 2, 8, 8, generator=generator) > 0.2
    valid[0, 1, :2] = False
    confidence = torch.rand(2, 8, 8, generator=generator) + 1
    stretch = torch.tensor([1.25, 1.25])

    class Scaled:
        def __call__(self, first, second):
            return [
                type("Map", (), {"pts3d": truth[:, v] * stretch[v], "conf": confidence[v][None]})() for v in range(2)
            ]

    pair = {"images": torch.zeros(1, 2, 3, 8, 8), "points": truth, "valid": valid}
    found = pair_errors(Scaled(), pair)
    assert found["median_relative_error_aligned"] == pytest.approx(0, abs=1e-6)
    assert found["median_relative_error_raw"] == pytest.approx(0.25, rel=1e-5)
    assert found["median_abs_log_scale"] == pytest.approx(math.log(1.25), rel=1e-5)

    stretch[1] = 1.5  # view 2 has fewer valid pixels, so the scale is view 1's
    found = pair_errors(Scaled(), pair)
    assert found["median_relative_error_aligned_view1"] == pytest.approx(0, abs=1e-6)
    assert found["median_relative_error_aligned_view2"] == pytest.approx(0.2, rel=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders bundled and scratch in which a whole run has ended, and which the next one uses."""
    folder, threads = tmp_path_factory.mktemp("trained"), torch.get_num_threads()
    (folder / "bundled").mkdir()
    OmegaConf.save(OmegaConf.create(PARAMS), folder / "bundled/params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "BUNDLED", folder / "bundled")
        patch.setattr(pretrain, "SCRATCH", folder / "scratch")
        pretrain.main()
        yield folder
    torch.set_num_threads(threads)


def test_a_run_that_is_cut_short_goes_on_and_ends_with_the_same_bytes(trained, monkeypatch):
    whole = (trained / "bundled/geometry.safetensors").read_bytes()
    record = json.loads((trained / "bundled/provenance.json").read_text())
    assert record["pairs"] == 8 and set(record["held_out"]) == {"objects", "rooms"}
    assert all(
        0 < family["median_relative_error_aligned"] < 5 and family["pairs"] > 0
        for family in record["held_out"].values()
    )

    for kept in (trained / "scratch").glob("network-*.pt"):
        kept.unlink()
    real, calls = pretrain.objective, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(pretrain, "objective", failing)
    with pytest.raises(KeyboardInterrupt):
        pretrain.main()
    monkeypatch.setattr(pretrain, "objective", real)
    pretrain.main()
    assert (trained / "bundled/geometry.safetensors").read_bytes() == whole


def test_training_goes_on_from_a_file_and_keeps_its_checkpoints_apart(trained, monkeypatch, tmp_path):
    start = tmp_path / "start.safetensors"
    shutil.copyfile(trained / "bundled/geometry.safetensors", start)
    params = OmegaConf.create(PARAMS | {"start": str(start)})
    found = pretrain.starting_network(params, torch.device("cpu")).state_dict()
    wanted = read_checkpoint(start).state_dict
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items()) and len(wanted) > 100

    names = []

    def finished(checkpoint, *_):
        names.append(checkpoint.name)
        return PARAMS["optimiser"]["steps"]

    monkeypatch.setattr(pretrain, "resume", finished)
    random = Mast3r(read_checkpoint(start).config)
    for content in (wanted, random.state_dict()):
        write_geometry(start, random.config, content)
        pretrain.train_network(params, torch.device("cpu"))
    assert len(set(names)) == 2
    start.unlink()
    with pytest.raises(FileNotFoundError, match="starts from .* which is not there; place it as README.md"):
        pretrain.train_network(params, torch.device("cpu"))


def test_the_result_loads_as_any_geometry_network_does(trained, tmp_path):
    shutil.copyfile(trained / "bundled/geometry.safetensors", tmp_path / "model.safetensors")
    network = load_geometry(tmp_path)
    assert network.config.enc_embed_dim == 24 and not any(p.requires_grad for p in network.parameters())
    assert all(
        tensor.dtype == torch.float32 for tensor in read_checkpoint(tmp_path / "model.safetensors").state_dict.values()
    )
