"""Every backbone that is known, with what its weights are and what they may be used for.

python -m src.backbones            the registry, and each DINOv2
python -m src.backbones NAME ...   any that model.backbone can name, such as timm:vit_base_patch16_siglip_224.webli
"""

from collections.abc import Iterable
from dataclasses import replace

from src.backbones import FAMILIES, build_backbone, known
from src.backbones.base import Backbone
from src.backbones.dinov2 import DINOV2_MODELS
from src.config import Model, load_config
from src.run import Words, mistakes_explained

HEADINGS = ("model.backbone", "title", "patch", "width", "parameters", "mean", "std", "licence", "gated", "source")


def backbone_row(name: str, backbone: Backbone) -> tuple[str, ...]:
    """A line of the table; sizes of the last block's features, which the width of several is the sum of."""
    statistics = (" ".join(f"{value:.3g}" for value in values) for values in (backbone.mean, backbone.std))
    title = backbone.label("random") if backbone.own_weights == "random" else backbone.title
    return (
        name,
        title,
        str(backbone.patch_size),
        str(backbone.channels),
        f"{backbone.num_parameters:,}",
        *statistics,
        backbone.licence,
        "yes" if backbone.gated else "no",
        backbone.source.url if backbone.source else "none",
    )


def backbone_rows(model: Model, names: Iterable[str] = ()) -> list[tuple[str, ...]]:
    """Of the backbones named; by default of all families that need no argument, and of all DINOv2 models."""
    model = replace(model, backbone_layers=None, dinov2_dim=None)
    if names := list(names):
        return [backbone_row(name, build_backbone(replace(model, backbone=name), None)) for name in names]
    found = []
    for name in FAMILIES:
        if name == "dinov2":
            found += [
                backbone_row(f"dinov2 ({each})", build_backbone(replace(model, backbone=name, dinov2_model=each), None))
                for each in DINOV2_MODELS
            ]
        elif not name.endswith(":"):
            found.append(backbone_row(name, build_backbone(replace(model, backbone=name), None)))
    return found


def aligned_columns(lines: list[tuple[str, ...]]) -> str:
    """Columns as wide as their widest entry, two spaces apart."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(entry.ljust(width) for entry, width in zip(line, widths)).rstrip() for line in lines)


def main(names: list[str]) -> None:
    print(aligned_columns([HEADINGS, *backbone_rows(load_config().model, names)]))
    if not names:
        open_ones = [name for name in known() if name.endswith(">")]
        print(f"\nand {', '.join(open_ones)}: name one to see its line, as in python -m src.backbones timm:resnet18")


if __name__ == "__main__":
    words = Words("backbones")
    words.add_argument("names", nargs="*", metavar="NAME")
    with mistakes_explained():
        main(words.parse_args().names)
