from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.episodes.episodes import Episode
from src.reproducible.files import write_json
from src.scenes.features import Features
from src.scenes.scene import Frame, write_scene
from src.splatt3r.samples import Samples, StepSampler, collate, true_points

NAMES = tuple(f"v{i}" for i in range(5))


def tiny_dataset(folder, channels: int) -> Samples:
    """One scene of five 16 x 16 photographs, frame i filled with the value 10 i, and features that name their frame."""
    frames = [
        Frame(
            name,
            np.full((16, 16, 3), 10 * i, np.uint8),
            np.full((16, 16), 1000 + i, np.uint16),
            0.001,
            None,
            None,
            np.array([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]]),
            np.eye(4),
            i,
        )
        for i, name in enumerate(NAMES)
    ]
    about = {"dataset": "test", "id": "one", "category": "test", "units": "metre", "license": "none", "source": {}}
    write_scene(folder / "scenes" / "one.safetensors", frames, about, lossless=True)
    numbers = torch.arange(5).half()
    for kind, width in (("geometry", 4), ("backbone", channels)):
        (folder / kind).mkdir()
        write_json(folder / kind / "record.json", {"channels": width})
    save_file({"tokens": numbers.view(5, 1, 1).expand(5, 1, 4).contiguous()}, folder / "geometry" / "one.safetensors")
    if channels:
        save_file(
            {"features": numbers.view(5, 1, 1, 1).expand(5, channels, 2, 2).contiguous()},
            folder / "backbone" / "one.safetensors",
        )
    episode = Episode("e", "one", ("v3", "v1"), ("v2", "v0"), "wide", 0.6, "depth", "", False, "test")
    return Samples(
        folder,
        Features(folder / "geometry", "tokens"),
        Features(folder / "backbone", "features"),
        (16, 16),
        lambda index: episode,
        3,
    )


def test_a_sample_holds_contexts_then_targets_in_the_episodes_order(tmp_path):
    sample = tiny_dataset(tmp_path, 6)[0]
    for views, grey, depth in ((sample.contexts, [30, 10], [1.003, 1.001]), (sample.targets, [20, 0], [1.002, 1.0])):
        assert [round(image.mean().item() * 255) for image in views.images] == grey
        torch.testing.assert_close(views.depth[:, 0, 0], torch.tensor(depth))
        assert views.images.shape == (2, 3, 16, 16) and views.size == (16, 16) and views.valid.all()
        assert views.K.shape == (2, 3, 3) and views.c2w.shape == (2, 4, 4)


def test_a_batch_holds_what_its_samples_hold(tmp_path):
    sample = tiny_dataset(tmp_path, 6)[0]
    one, other = (replace(sample, features=torch.full((2, 6, 2, 2), value)) for value in (1.0, 2.0))
    batch = collate([one, other])
    assert batch.contexts.images.shape == (2, 2, 3, 16, 16) and batch.targets.K.shape == (2, 2, 3, 3)
    assert torch.equal(batch.features[1], other.features) and torch.equal(batch.tokens[0], one.tokens)
    assert batch.true_points is None and collate([replace(one, features=None)]).features is None
    moved = batch.to("meta")
    assert moved.targets.depth.is_meta and moved.features.is_meta and moved.true_points is None


def test_features_are_those_of_the_contexts_as_float32(tmp_path):
    sample = tiny_dataset(tmp_path, 6)[0]
    assert sample.tokens.dtype == sample.features.dtype == torch.float32
    assert sample.tokens[:, 0, 0].tolist() == [3, 1] and sample.features[:, 0, 0, 0].tolist() == [3, 1]
    assert sample.features.shape == (2, 6, 2, 2)


def test_without_a_backbone_there_are_no_features(tmp_path):
    assert tiny_dataset(tmp_path, 0)[0].features is None


def test_missing_features_name_the_remedy(tmp_path):
    samples = tiny_dataset(tmp_path, 6)
    (tmp_path / "backbone" / "one.safetensors").unlink()
    try:
        samples[0]
    except FileNotFoundError as error:
        assert "run dvc repro" in str(error)
    else:
        raise AssertionError("read features that are not there")


def test_a_pass_starts_where_it_is_told_to():
    sampler, seen = StepSampler(3), []
    for start in (0, 3, 6):
        sampler.start = start
        seen += list(sampler)
    assert seen == list(range(9)) and len(sampler) == 3


@pytest.mark.parametrize("batch, processes", [(1, 2), (2, 3)])
def test_processes_share_out_what_one_of_a_larger_batch_sees_in_a_step(batch, processes):
    sampler, steps, first = StepSampler(4 * batch), [set() for _ in range(4)], 10
    sampler.start, sampler.processes = first, processes
    for sampler.rank in range(processes):
        assert len(list(sampler)) == len(sampler) == 4 * batch
        for place, index in enumerate(sampler):
            assert index not in steps[place // batch]
            steps[place // batch].add(index)
    size = batch * processes
    assert steps == [set(range(first + step * size, first + (step + 1) * size)) for step in range(4)]


def test_the_oracles_points_are_those_of_the_depth(tmp_path):
    samples = tiny_dataset(tmp_path, 0)
    assert samples[0].true_points is None
    write_json(tmp_path / "backbone" / "record.json", {"channels": 0, "true_points": True})
    samples = Samples(
        samples.scenes, samples.geometry, Features(tmp_path / "backbone", "features"), (16, 16), samples.episode, 3
    )
    sample = samples[0]
    assert sample.true_points.shape == (2, 16, 16, 3)
    for row, column in ((0, 0), (5, 12)):
        for view, depth in ((0, 1.003), (1, 1.001)):
            expected = [(column + 0.5 - 8) / 16 * depth, (row + 0.5 - 8) / 16 * depth, depth]
            torch.testing.assert_close(sample.true_points[view, row, column], torch.tensor(expected))
    sample.contexts.depth[1, 3, 4] = 0
    unknown = true_points(sample.contexts, "one").isnan()
    assert unknown[1, 3, 4].all() and unknown.sum() == 3
    sample.contexts.depth[1] = 0
    with pytest.raises(ValueError, match="oracle needs true points, but a context view of scene one has no depth"):
        true_points(sample.contexts, "one")
