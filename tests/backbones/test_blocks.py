import pytest

from src.backbones.blocks import chosen_blocks


@pytest.mark.parametrize(
    ("layers", "depth", "blocks"),
    [
        (None, 12, (12,)),
        ([3, 12], 12, (3, 12)),
        ([0.25, 0.5, 1.0], 24, (6, 12, 24)),
        ([1], 12, (1,)),
        ([1.0], 12, (12,)),
    ],
)
def test_blocks_are_counted_from_one_or_given_as_fractions(layers, depth, blocks):
    assert chosen_blocks(layers, depth) == blocks


@pytest.mark.parametrize("layers", [[], [0], [13], [4, 4], [8, 4], [0.0], [1.5]])
def test_blocks_that_do_not_exist_are_refused(layers):
    with pytest.raises(ValueError, match="model.backbone_layers .* from 1 to 12"):
        chosen_blocks(layers, 12)
