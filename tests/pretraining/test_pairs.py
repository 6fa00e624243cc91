"""Pairs for training the bundled network: where their points are, what augmentation does, and that they repeat."""

import numpy as np
import pytest
import torch

from src.pretraining.matching import patch_matches
from src.pretraining.pairs import PosedImages, Stream, draw_pairs, gathered, mirrored, recoloured
from src.procedural.scenes import DEPTH_SCALE
from tests.helpers.pairs import STREAM


def pixel_of(K: np.ndarray, point: np.ndarray) -> np.ndarray:
    seen = K @ point
    return seen[:2] / seen[2]


def test_points_of_both_views_stand_in_the_first_cameras_frame(scenes):
    checked = 0
    for scene in scenes:
        for i, j in scene.pairs[:3]:
            pair = {name: tensor[0].double().numpy() for name, tensor in gathered([(scene, np.array([i, j]))]).items()}
            views = {name: tensor.numpy() for name, tensor in scene.views.items()}
            to_view = [np.eye(4), np.linalg.inv(views["c2w"][j]) @ views["c2w"][i]]
            for side, view in enumerate((i, j)):
                for row, column in ((3, 5), (8, 20), (12, 30)):
                    if not pair["valid"][side, row, column]:
                        continue
                    own = (to_view[side] @ [*pair["points"][side, row, column], 1])[:3]
                    assert own[2] == pytest.approx(views["depth"][view, row, column], abs=1e-4)
                    assert pixel_of(views["K"][view], own) == pytest.approx([column + 0.5, row + 0.5], abs=1e-3)
                    checked += 1
                np.testing.assert_allclose(pair["images"][side] * 255, views["images"][view], atol=1e-4)
    assert checked > 20


def test_depth_is_in_metres_and_pairs_overlap_in_both_directions():
    rng = np.random.default_rng(0)
    depths = rng.integers(0, 9000, (3, 8, 8)).astype(np.uint16)
    overlap = np.array([[1, 0.5, 0.4], [0.2, 1, 0.05], [0.3, 0.9, 1]])
    scene = PosedImages(
        {
            "images": np.zeros((3, 8, 8, 3), np.uint8),
            "depths": depths,
            "K": np.tile(np.eye(3), (3, 1, 1)),
            "c2w": np.tile(np.eye(4), (3, 1, 1)),
            "overlap": np.minimum(overlap, overlap.T),
        },
        0.2,
    )
    assert scene.pairs.tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    np.testing.assert_allclose(scene.views["depth"].numpy(), depths * DEPTH_SCALE, rtol=1e-6)


def test_a_mirrored_pair_is_that_of_the_mirrored_world(scenes):
    pairs = gathered([(scene, pair) for scene in scenes[:2] for pair in scene.pairs[:2]])
    which = torch.tensor([True, False] * (len(pairs["images"]) // 2))
    found = mirrored(pairs, which)
    for b, flip in enumerate(which.tolist()):
        for name in pairs:
            one, other = pairs[name][b].numpy(), found[name][b].numpy()
            if not flip:
                np.testing.assert_array_equal(one, other)
            elif name == "images":
                np.testing.assert_array_equal(other, one[..., ::-1])
            elif name == "matches":
                np.testing.assert_array_equal(other, one[:, :, ::-1, :, ::-1])
            else:
                expected = one[:, :, ::-1] * (np.array([-1, 1, 1]) if name == "points" else True)
                np.testing.assert_array_equal(other, expected)


def test_the_matches_of_a_mirrored_pair_are_those_of_mirrored_cameras(scenes):
    [(views, pair), *_] = [(scene.views, pair) for scene in scenes for pair in scene.pairs]
    depth, K, c2w = (views[name][pair][None].double() for name in ("depth", "K", "c2w"))
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    K_mirrored = K.clone()
    K_mirrored[..., 0, 2] = depth.shape[-1] - K[..., 0, 2]
    expected = patch_matches(depth.flip(-1), K_mirrored, mirror @ c2w @ mirror, 8)
    names = {"images": depth[:, :, None], "points": depth[..., None].expand(*depth.shape, 3), "valid": depth > 0}
    found = mirrored(names | {"matches": patch_matches(depth, K, c2w, 8)}, torch.tensor([True]))["matches"]
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, found.flip(3, 5))


def test_recolouring_is_one_exposure_and_tint_for_both_views_and_for_half_of_the_pairs_an_order_of_the_channels():
    images = torch.rand(40, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images[:, 1, :, 0, 0] = images[:, 0, :, 0, 0]
    found = recoloured(images, np.random.default_rng(1))
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(found[:, 1, :, 0, 0], found[:, 0, :, 0, 0])

    def comes_from(before, after) -> bool:  # log out = gamma log in + log gain: a line wherever nothing was clamped
        before, after = before.flatten().double(), after.flatten().double()
        inner = (after > 0) & (after < 1)
        slope, gain = np.polyfit(before[inner].log(), after[inner].log(), 1)
        residual = after[inner].log() - slope * before[inner].log() - gain
        return residual.abs().max() < 1e-4 and 0.8 <= slope <= 1.25 and 0.73 < np.exp(gain) < 1.3

    orders = [
        [next(old for old in range(3) if comes_from(image[:, old], result[:, new])) for new in range(3)]
        for image, result in zip(images, found)
    ]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert 14 <= sum(order == [0, 1, 2] for order in orders) <= 32  # of 40: half of them, and a sixth of the others
    assert len({tuple(order) for order in orders}) > 3


def test_a_batch_repeats_itself_and_passes_over_scenes_without_pairs(scenes):
    lonely = PosedImages(
        {
            "images": np.zeros((1, 16, 32, 3), np.uint8),
            "depths": np.ones((1, 16, 32), np.uint16),
            "K": np.eye(3)[None],
            "c2w": np.eye(4)[None],
            "overlap": np.eye(1),
        },
        0.1,
    )
    pool = [lonely, *scenes]
    one, again, other = (draw_pairs(pool, 6, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one["images"].shape == (6, 2, 3, 16, 32) and one["points"].shape == (6, 2, 16, 32, 3)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["images"], other["images"])
    assert one["valid"].float().mean() > 0.5


def test_scenes_alternate_between_families_and_do_not_depend_on_the_number_of_workers(scenes, tmp_path):
    stream = Stream(STREAM, 5, 2, tmp_path)
    stream.grow(2)
    stream.close()
    assert {path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.npz")} >= {"objects-5", "rooms-6"}
    for found, known in zip(stream.scenes, scenes):
        assert all(torch.equal(found.views[name], known.views[name]) for name in known.views)
