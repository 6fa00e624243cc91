import torch

from src.backbones.controls import Constant, Nothing, Oracle, Random, Rgb, Shuffled
from src.backbones.dinov2 import DinoV2


def photographs(count: int = 3) -> torch.Tensor:
    levels = torch.randint(0, 256, (count, 3, 56, 70), generator=torch.Generator().manual_seed(0))
    return levels.float() / 255


def test_nothing_has_no_channels():
    features = Nothing()(photographs())
    assert features.shape == (3, 0, 4, 5) and Nothing().num_parameters == 0


def test_constant_features_say_nothing_about_the_image():
    assert torch.equal(Constant(384)(photographs()), torch.ones(3, 384, 4, 5))


def test_rgb_holds_each_patchs_pixels():
    images = photographs()
    features = Rgb()(images)
    assert features.shape == (3, Rgb.channels, 4, 5)
    for row, column, channel, y, x in ((0, 0, 0, 0, 0), (3, 4, 2, 13, 13), (1, 2, 1, 5, 9)):
        value = images[1, channel, 14 * row + y, 14 * column + x]
        torch.testing.assert_close(features[1, channel * 196 + y * 14 + x, row, column], value * 2 - 1)


def test_rgb_knows_where_each_patch_is():
    features = Rgb()(photographs())
    for row, column in ((0, 0), (3, 4), (1, 2)):
        centre = (14 * column + 7) / 70, (14 * row + 7) / 56  # of the photograph's width and height
        torch.testing.assert_close(features[2, -2:, row, column], torch.tensor(centre) * 2 - 1)


def test_random_is_the_same_network_untrained_whatever_the_weights():
    sizes = {"embed_dim": 64, "depth": 1, "num_heads": 2}
    control, plain = Random("dinov2_vits14", None, 3, **sizes), DinoV2("dinov2_vits14", None, 3, **sizes)
    assert (control.name, control.own_weights, control.source, control.licence) == (
        "random",
        "random",
        None,
        "none needed",
    )
    assert torch.equal(control(photographs()), plain(photographs()))
    assert control.label("random") == "DINOv2 ViT-S/14 (random weights, untrained)"


def test_oracle_has_no_features_and_cannot_be_mistaken():
    assert Oracle()(photographs()).shape[1] == 0 and Oracle().true_points and not Nothing().true_points
    assert (Oracle().name, Oracle().label("none")) == ("oracle", "oracle geometry (true points)")
    assert "ceiling" in Oracle().note


def test_shuffling_moves_features_and_keeps_them():
    inner = DinoV2(embed_dim=64, depth=1, num_heads=2)
    images = photographs()
    plain, moved = inner(images).flatten(2), Shuffled(inner, seed=1)(images).flatten(2)
    orders = []
    for i in range(len(images)):
        distances = torch.cdist(moved[i].T, plain[i].T)
        order = distances.argmin(1)
        assert sorted(order.tolist()) == list(range(20))
        assert torch.equal(moved[i], plain[i][:, order])
        orders.append(tuple(order.tolist()))
    assert len(set(orders)) == 3 and tuple(range(20)) not in orders  # another order for each image


def test_the_order_depends_on_image_and_seed_alone():
    inner = DinoV2(embed_dim=64, depth=1, num_heads=2)
    images = photographs()
    together = Shuffled(inner, seed=1)(images)
    torch.testing.assert_close(Shuffled(inner, seed=1)(images[2:]), together[2:], rtol=0, atol=1e-5)
    assert not torch.allclose(Shuffled(inner, seed=2)(images[2:]), together[2:], atol=1e-2)


def test_shuffled_counts_and_loads_its_inner_networks_weights_once():
    inner = DinoV2(embed_dim=64, depth=1, num_heads=2)
    shuffled = Shuffled(inner)
    assert shuffled.num_parameters == inner.num_parameters and shuffled.source == inner.source
    shuffled.load({name: torch.zeros_like(tensor) for name, tensor in inner.network.state_dict().items()}, "zeros")
    assert all(parameter.eq(0).all() for parameter in inner.parameters())
    assert shuffled.label("random") == "DINOv2 ViT-S/14, places shuffled (random weights, untrained)"
