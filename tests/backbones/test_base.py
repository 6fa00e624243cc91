import numpy as np
import torch
from PIL import Image

from src.backbones.base import Backbone, resize, seeded


class Means(Backbone):
    """Mean of each patch, of images normalised with mean 0.5 and std 0.25."""

    name, title, channels, patch_size, mean, std = "means", "Means", 3, 14, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def features(self, images):
        return torch.nn.functional.avg_pool2d(images, self.patch_size)


def test_resizing_agrees_with_pillow():
    images = torch.rand(1, 3, 45, 60, generator=torch.Generator().manual_seed(0))
    for size in ((56, 70), (28, 42), (45, 60)):
        expected = [
            np.asarray(Image.fromarray(channel.numpy()).resize(size[::-1], Image.Resampling.BICUBIC))
            for channel in images[0]
        ]
        np.testing.assert_allclose(resize(images, size)[0], np.stack(expected), atol=1e-5)


def test_the_own_grid_covers_the_image_and_another_can_be_asked_for():
    images = torch.full((2, 3, 128, 141), 0.75)
    assert Means()(images).shape == (2, 3, 10, 11)
    assert Means()(images, grid=(8, 9)).shape == (2, 3, 8, 9)
    torch.testing.assert_close(Means()(images), torch.ones(2, 3, 10, 11))  # (0.75 - 0.5) / 0.25


def test_seeding_is_local():
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(4, generator=torch.Generator().manual_seed(3)), first)


def test_labels_say_what_the_weights_are():
    assert Means().label("random") == "Means (random weights, untrained)" and Means().label("pretrained") == "Means"
