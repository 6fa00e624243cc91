import pytest
import torch
import torchvision
from torch import nn

from src import backbones, weights
from src.backbones.alexnet_vgg import TRUNK_STAGES, Trunk, TrunkStage, at_cells
from src.fetching.packages import INSTALL, installed
from src.pretrained.trunks import TRUNKS, layers
from src.reproducible.files import read_json
from tests.helpers.weights import config


@pytest.mark.parametrize("trunk", TRUNK_STAGES)
def test_stages_lie_where_their_receptive_fields_are(trunk):
    """Means for maxima and ones for kernels: the gradient of a place is its receptive field, whose middle is known."""
    size = 480  # twice the largest receptive field and more
    image = torch.zeros(1, 3, size, size, requires_grad=True)
    x, wanted = image, {stage.layer: stage for stage in TRUNK_STAGES[trunk]}
    for number, layer in enumerate(layers(trunk)):
        if isinstance(layer, nn.Conv2d):
            kernel = torch.ones(1, x.shape[1], *layer.kernel_size) / x.shape[1]
            x = nn.functional.conv2d(x, kernel / kernel.sum(), stride=layer.stride, padding=layer.padding)
        elif isinstance(layer, nn.MaxPool2d):
            x = nn.functional.avg_pool2d(x, layer.kernel_size, layer.stride)
        if number in wanted:
            stage, middle = wanted[number], x.shape[-1] // 2
            (field,) = torch.autograd.grad(x[0, 0, middle, middle], image, retain_graph=True)
            along = field[0].sum((0, 1))
            centre = (along * (torch.arange(size) + 0.5)).sum() / along.sum()
            assert centre.item() == pytest.approx(stage.first + middle * stage.stride, abs=1e-3)
    assert [stage.stride for stage in TRUNK_STAGES[trunk]] == {"alex": [4, 8, 16, 16, 16], "vgg": [1, 2, 4, 8, 16]}[
        trunk
    ]


def test_a_map_is_read_at_the_centres_of_cells():
    """A ramp over the image stays that ramp, but at the border, where the outermost place is repeated."""
    stage = TrunkStage(0, 16, 15.5)
    places = stage.first + 16 * torch.arange(7.0)
    found = at_cells(places.expand(2, 1, 7, 7), stage, (128, 128))
    centres = 16 * torch.arange(8) + 8.0
    assert found.shape == (2, 1, 8, 8)
    torch.testing.assert_close(found[1, 0, 3], centres.clamp(15.5, 15.5 + 96), rtol=0, atol=1e-4)
    aligned = torch.rand(1, 3, 4, 6)
    assert at_cells(aligned, TrunkStage(0, 16, 8.0), (64, 96)) is aligned


@torch.no_grad()
@pytest.mark.parametrize(("trunk", "name", "widths"), [("alex", "alexnet", (384, 256)), ("vgg", "vgg16", (256, 512))])
def test_the_packages_weights_give_torchvisions_features(weights_folder, trunk, name, widths):
    if installed(TRUNKS[trunk][1].packaged) is None:
        pytest.skip(f"the package of the trunks is not installed: {INSTALL}")
    chosen = config(f"model.backbone={name}", "model.weights=pretrained")
    weights.main(chosen)
    record = read_json("data/weights/backbone/record.json")
    assert (record["label"], record["road"]) == (f"{TRUNKS[trunk][0]} (ImageNet)", "package")
    backbone = backbones.load_backbone(chosen.model, "data/weights/backbone")
    assert (
        (backbone.patch_size, backbone.channels) == (16, widths[1]) == (16, backbone(torch.rand(1, 3, 48, 80)).shape[1])
    )
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    network = torchvision.models.get_model(name).features.eval()
    network.load_state_dict({key: backbone.network["features"].state_dict()[key] for key in network.state_dict()})
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    wanted = network[: TRUNK_STAGES[trunk][-1].layer + 1]((images - mean) / std)
    found = backbone(images)
    assert found.shape == (1, widths[1], 6, 6)
    if trunk == "vgg":
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    else:  # five places at 15.5, 31.5, ...; six cells at 8, 24, ...: cell 2 at 40 lies 8.5 / 16 after the second place
        share = 8.5 / 16
        along = [(1 - share) * wanted[..., place, :] + share * wanted[..., place + 1, :] for place in (1,)]
        both = (1 - share) * along[0][..., 1] + share * along[0][..., 2]
        torch.testing.assert_close(found[..., 2, 2], both, rtol=0, atol=1e-4)
    several = Trunk(trunk, [3, 5])
    assert several.channels == sum(widths) and several(images).shape == (1, sum(widths), 6, 6)
    assert several.title == f"{TRUNKS[trunk][0]}, block 3+5"


def test_untrained_weights_repeat_and_do_not_fade():
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second, other = (Trunk("alex", seed=seed)(images) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other) and first.std() > 0.01
