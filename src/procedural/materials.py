"""What things are made of: palettes that go together, and which patterns and sizes suit a wall, a floor, a toy.

A Style is drawn once per scene; everything in it takes its colours from one palette, wood from one kind of tree.
"""

from dataclasses import replace

import numpy as np

from src.procedural.world import Material

PALETTES = (  # sRGB: pale, middle, dark, and three accents
    "f3ead7 b9a88a 33384a c8452f e3a72f 3f7f8c",
    "e9ecef 93a4b5 26364a e4572e f2c14e 76b041",
    "f6e7cb c9a27a 4a2c24 a63d2f 567a4e e2b04a",
    "e8efe4 8fae94 25413a d96b4f f0c987 40798c",
    "f4e1de c98f96 41303f 7c4d8b e8b75c 4a9a8f",
    "eee6f2 9d8fb8 2d2948 e06c8b f4c95d 4aa5c9",
    "fbf1e0 d6b38c 5b3a29 e07a3f 2f6690 81a65c",
    "e6eef2 7fa3b8 1d3548 f26b4e ffd166 5a9e6f",
    "f2efe6 a9a79b 3a3a38 c43c3c e9b44c 3c6e91",
    "efe3c8 b7955d 3b3022 6b8f3c c9502c 2e7d7a",
    "f7e9e9 d48c7f 4b2a34 f0b15f 6a8caf 7a9b5e",
    "e4efe9 6fa3a0 173a3f f2784b f5d26b b0447a",
    "f1f0ea c0b49e 2b2f36 db9d2a a0402e 5f7f9c",
    "eae4d6 8c9a6b 2f3b2a d9642f f1cf5b 8a5a9c",
)
WOODS = (
    "d2ab77 a4743f",
    "b0794a 6c4224",
    "e0c79b b38d5a",
    "7b5337 442a1b",
    "c49a6c 84562f",
    "9a6a45 5d3a22",
    "d9b48f a87448",
    "5e4030 2f1f18",
)
STONES = (
    "dcd6ca a8a196 6b665e",
    "c9ccd0 8b9096 54585e",
    "e6dccb b59f80 7a634a",
    "b9b0a6 7d746b 4a4540",
    "d7d9d2 9aa394 5a6558",
    "cfb8a3 9c7a62 644a3a",
)
BRICKS = (
    "b5654a 8c4433 d9cfc2",
    "c98a66 a05a40 e4dccf",
    "d8c7ae b79f83 9b948a",
    "8f5a4c 6b3f36 b9aea2",
    "a7a9a6 7f8481 d5d3cc",
    "e5e0d6 c9c2b5 a59f94",
)

WALLS = ("plaster", "plaster", "bricks", "stripes", "dots", "tiles", "blotches", "mosaic", "stones", "plaid")
FLOOR_TEXTURES = ("planks", "planks", "planks", "tiles", "checker", "terrazzo", "stones", "mosaic", "bricks", "marble")
CLOTHS = ("plaid", "stripes", "dots", "blotches", "plaster", "checker", "mosaic")
TOYS = (
    "plaster",
    "wood",
    "marble",
    "tiles",
    "checker",
    "stripes",
    "plaid",
    "dots",
    "terrazzo",
    "stones",
    "blotches",
    "mosaic",
    "print",
    "bricks",
)


def linear(hexes: str) -> np.ndarray:
    """Linear RGB (n, 3) of sRGB colours in hexadecimal."""
    values = np.array([[int(code[k : k + 2], 16) for k in (0, 2, 4)] for code in hexes.split()]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


class Style:
    """A scene's taste: one palette, one wood, one stone, and a generator for what is left to chance."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.palette = self.shifted(linear(PALETTES[rng.integers(len(PALETTES))]), 0.1)
        self.trees = [linear(WOODS[number]) for number in rng.permutation(len(WOODS))[:2]]
        self.stone = linear(STONES[rng.integers(len(STONES))])
        self.brick = linear(BRICKS[rng.integers(len(BRICKS))])

    def shifted(self, colours: np.ndarray, by: float) -> np.ndarray:
        """Colours brighter or darker, and each channel a little, by a random share."""
        factors = np.exp(self.rng.normal(0, by, (len(colours), 1)) + self.rng.normal(0, 0.5 * by, colours.shape))
        return np.clip(colours * factors, 0.012, 0.88)

    def mixed(self, pale: bool = False) -> np.ndarray:
        """Four palette colours in random order, the ground pale if asked; 1 in 6 from another palette."""
        palette = linear(PALETTES[self.rng.integers(len(PALETTES))]) if self.rng.random() < 1 / 6 else self.palette
        order = self.rng.permutation(6)
        if pale:
            order = np.r_[self.rng.integers(2), self.rng.permutation(np.arange(2, 6))]
        return self.shifted(palette[order[:4]], 0.18)

    def of(
        self, kinds: str | tuple[str, ...], scale: float, pale: bool = False, gloss: float | None = None
    ) -> Material:
        """A material of one of the `kinds` of patterns; woods and stones in their own colours."""
        kind = kinds if isinstance(kinds, str) else str(self.rng.choice(kinds))
        colours = self.mixed(pale)
        grain = self.rng.uniform(0.2, 0.45)
        if kind in ("wood", "planks"):
            return self.wood(scale, kind)
        if kind in ("stones", "terrazzo") and self.rng.random() < 0.7:
            colours = self.shifted(np.concatenate([self.stone[[0, 1, 2]], colours[:1]]), 0.12)
        if kind == "bricks":
            colours = self.shifted(self.brick[[0, 1, 1, 2]], 0.12) * ([[1], [1], [0.75], [1]])
        if kind == "plaster":
            first = colours[0]
            colours = np.stack([first, 0.6 * first + 0.05 * colours[1], 0.55 * first + 0.25 * colours[2], colours[3]])
            grain = self.rng.uniform(0.35, 0.6)
        if kind == "marble":
            colours = np.stack([colours[0], 0.75 * colours[0] + 0.1, 0.3 * colours[1], 0.4 * colours[2]])
        if kind == "print":
            colours = np.stack([np.maximum(colours[0], 0.5), 0.12 * colours[1], colours[2], colours[3]])
        chosen = float(self.rng.choice([0, 0, 0.15, 0.35])) if gloss is None else gloss
        return Material(kind, scale * self.rng.uniform(0.8, 1.25), np.clip(colours, 0.01, 0.88), grain, chosen)

    def wood(self, scale: float = 0.06, kind: str = "wood", tree: int | None = None) -> Material:
        light, dark = self.shifted(self.trees[int(self.rng.integers(2)) if tree is None else tree], 0.08)
        colours = np.stack([light, 0.55 * light + 0.45 * dark, 0.8 * dark, 0.35 * dark])
        return Material(
            kind,
            scale * self.rng.uniform(0.8, 1.25),
            colours,
            self.rng.uniform(0.15, 0.3),
            float(self.rng.choice([0, 0.1, 0.25])),
        )

    def paint(self, accent: int | None = None, gloss: float | None = None) -> Material:
        """One colour of the palette, with only the marks of use."""
        number = int(self.rng.integers(6)) if accent is None else accent
        colour = self.shifted(self.palette[[number]], 0.12)[0]
        colours = np.stack([colour, 0.75 * colour, np.clip(1.25 * colour + 0.02, 0, 0.88), 0.5 * colour])
        chosen = float(self.rng.choice([0, 0.2, 0.4])) if gloss is None else gloss
        return Material("plaster", 0.12, colours, self.rng.uniform(0.25, 0.5), chosen)

    def metal(self) -> Material:
        grey = np.array([0.32, 0.33, 0.35]) * self.rng.uniform(0.4, 1.6)
        return Material("plaster", 0.1, np.stack([grey, 0.8 * grey, 1.2 * grey, 0.6 * grey]), 0.2, 0.5)

    def leaf(self) -> Material:
        green = self.shifted(linear("5b8f3a"), 0.3)[0]
        return Material("blotches", 0.07, np.stack([green, 0.7 * green, 1.3 * green, 0.5 * green]), 0.4, 0.1)

    def wall(self) -> Material:
        kind = str(self.rng.choice(WALLS))
        material = self.of(
            kind,
            {"plaster": 0.5, "bricks": 0.24, "tiles": 0.32, "stones": 0.4, "mosaic": 0.3, "blotches": 0.5}.get(
                kind, 0.4
            ),
            pale=True,
            gloss=0,
        )
        if kind in ("stripes", "dots", "blotches", "mosaic", "plaid", "tiles"):  # wallpaper: colours near its ground
            colours = material.colours
            material = replace(material, colours=colours[:1] + self.rng.uniform(0.35, 0.8) * (colours - colours[:1]))
        return material

    def floor(self) -> Material:
        kind = str(self.rng.choice(FLOOR_TEXTURES))
        scale = {
            "planks": 0.16,
            "tiles": 0.33,
            "checker": 0.35,
            "terrazzo": 0.3,
            "stones": 0.4,
            "mosaic": 0.25,
            "bricks": 0.26,
            "marble": 0.7,
        }[kind]
        return self.of(kind, scale, pale=self.rng.random() < 0.6)

    def cloth(self, scale: float = 0.22) -> Material:
        return self.of(CLOTHS, scale, gloss=0)

    def toy(self, size: float) -> Material:
        """A pattern that shows a few of its units on a thing of `size` metres."""
        kind = str(self.rng.choice(TOYS))
        return self.of(kind, size * self.rng.uniform(0.25, 0.5) * (0.35 if kind == "wood" else 1.0))

    def label(self, height: float) -> Material:
        """Bands and a badge over `height` metres."""
        return Material("label", height, self.mixed(), 0.2, float(self.rng.choice([0, 0.2, 0.4])))

    def painting(self, width: float) -> Material:
        return Material("painting", width, self.mixed(), 0.25, 0.0)
