"""Which blocks of a network `model.backbone_layers` means."""

from collections.abc import Sequence


def chosen_blocks(layers: Sequence[int | float] | None, depth: int, default: int = 0) -> tuple[int, ...]:
    """Block numbers, from 1, that `model.backbone_layers` means in a network of `depth` blocks.

    layers  None = `default`, or the last without one; integers are block numbers, floats in (0, 1] fractions of the depth
    raises  ValueError  when one is out of range, or they do not increase
    """
    if layers is None:
        return (default or depth,)
    numbers = tuple(round(layer * depth) if isinstance(layer, float) else layer for layer in layers)
    if not numbers or min(numbers) < 1 or max(numbers) > depth or any(a >= b for a, b in zip(numbers, numbers[1:])):
        raise ValueError(
            f"model.backbone_layers is {list(layers)}; give increasing block numbers from 1 to {depth}, "
            "or increasing fractions of the depth such as 0.5 and 1.0."
        )
    return numbers


def with_blocks(title: str, layers: Sequence[int | float] | None, blocks: tuple[int, ...]) -> str:
    """Title that names the blocks where they are not the default."""
    return title if layers is None else f"{title}, block {'+'.join(map(str, blocks))}"
