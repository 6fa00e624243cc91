import torch

from src.geometry.cameras import invert_se3
from src.inference.examples import example_pair


def test_an_example_is_two_views_of_one_scene_and_their_cameras():
    images, (K, c2w) = example_pair("objects", (32, 32))
    assert images.shape == (2, 3, 32, 32) and 0.01 < (images[0] - images[1]).abs().mean() < 0.5
    assert torch.equal(images, example_pair("objects", (32, 32))[0])
    assert K.shape == (2, 3, 3) and c2w.shape == (2, 4, 4)
    between = invert_se3(c2w[0]) @ c2w[1]
    assert between[:3, 3].norm() > 0.05 and K[0, 0, 2] == 16
