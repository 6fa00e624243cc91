"""Pictures to look at: test targets chosen by rule; what went in, what was wanted and what came out, side by side."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from src.experiments.result import ExperimentResult
from src.renders.episode_file import Rendered
from src.results.tables import Row, groups, select_rows
from src.scenes.scene import Scene, SceneRecord

RULES = ("first", "easiest", "median", "hardest")
JUDGE = {"method": "copy_nearest", "alignment": "raw"}  # all experiments share it: no network has a part in it
TRUTH = "target image"  # the panel of what was held out
MAX_FAMILIES = 6  # more are shown as one
ERROR_RANGE = 0.5  # mean absolute error over RGB at which the error map is brightest
UNSEEN_COLOUR = (96, 96, 96)  # error map outside the mask
PANEL_HEIGHT, GAP, LINE = 128, 6, 18  # pixels of a strip: least panel height, space between, height of a line of words
STRIP_COLOUR, TITLE_COLOUR, NOTE_COLOUR = (255, 255, 255), (25, 28, 32), (110, 116, 124)


@dataclass(frozen=True)
class Chosen:
    """One target to show. name: of its file, family_rule; row: its scores (method render, aligned)."""

    family: str
    rule: str
    row: Row

    @property
    def name(self) -> str:
        return f"{self.family}_{self.rule}"


@dataclass(frozen=True)
class SecondRenders:
    """The experiment shown beside this run. pictures: name of a chosen target -> its render (H, W, 3) uint8."""

    result: ExperimentResult
    pictures: dict[str, np.ndarray]


def choose(rows: list[Row]) -> list[Chosen]:
    """Per family of scenes the easiest, median and hardest target, by how well a copied context shows it, and the first
    by name: the same ones in every experiment on the same episodes."""
    easy = {(row["episode"], row["target"]): row["psnr_masked"] for row in select_rows(rows, **JUDGE)}
    scored = [row for row in select_rows(rows, method="render", alignment="aligned") if row["psnr_masked"] is not None]
    families = groups(scored, "category") if scored else []
    if len(families) > MAX_FAMILIES:
        members = {"all": scored}
    else:
        members = {family: select_rows(scored, category=family) for family in families}
    chosen = []
    for family, targets in members.items():
        by_name = sorted(targets, key=lambda row: (row["episode"], row["target"]))
        ordered = sorted(by_name, key=lambda row: easy[row["episode"], row["target"]])
        middle = ordered[(len(ordered) - 1) // 2]
        picks = {"first": by_name[0], "easiest": ordered[-1], "median": middle, "hardest": ordered[0]}
        chosen += [Chosen(family, rule, picks[rule]) for rule in RULES]
    return chosen


def bytes_of(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8, clamped"""
    return np.rint(image.clamp(0, 1).numpy().transpose(1, 2, 0) * 255).astype(np.uint8)


def coloured(values: np.ndarray, low: float, high: float, colours: str) -> np.ndarray:
    """(H, W) -> (H, W, 3) uint8 through a matplotlib colour map."""
    shares = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return (colormaps[colours](shares)[..., :3] * 255).round().astype(np.uint8)


def error_panel(render: Tensor, truth: Tensor, mask: np.ndarray) -> np.ndarray:
    """Mean absolute error over RGB, dark = none; grey where no context has seen the pixel."""
    errors = (render.clamp(0, 1) - truth).abs().mean(0).numpy()
    panel = coloured(errors, 0, ERROR_RANGE, "inferno")
    panel[~mask] = UNSEEN_COLOUR
    return panel


def depth_panel(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Near is bright; the range is the true depth's where there is one; black where nothing was rendered."""
    reference = truth[truth > 0] if (truth > 0).any() else depth[depth > 0]
    low, high = np.percentile(reference, [2, 98]) if reference.size else (0.0, 1.0)
    panel = coloured(-depth, -high, -low, "viridis")
    panel[depth <= 0] = 0
    return panel


def panels(chosen: Chosen, index: dict[str, SceneRecord], scenes: Path, renders: Path) -> dict[str, np.ndarray]:
    """What there is to see of one target, each (H, W, 3) uint8."""
    rendered = Rendered.read(renders / f"{chosen.row['episode']}.safetensors")
    number = rendered.about["targets"].index(chosen.row["target"])
    scene = Scene.open(scenes / index[chosen.row["scene"]].file)
    first, second, target = (
        scene.view(name, rendered.resolution) for name in (*rendered.about["contexts"], chosen.row["target"])
    )
    render = rendered.picture("render", "aligned")[number]
    depth = rendered.picture("depth", "aligned")[number].numpy()
    mask = rendered.tensors["mask"][number].bool().numpy()
    return {
        "context 1": bytes_of(first.image),
        "context 2": bytes_of(second.image),
        TRUTH: bytes_of(target.image),
        "render": bytes_of(render),
        "error": error_panel(render, target.image, mask),
        "depth": depth_panel(depth, target.depth.numpy()),
    }


def other_render(chosen: Chosen, path: Path) -> np.ndarray | None:
    """The same target (H, W, 3) uint8 in another experiment's file of data/renders; None where it was not
    rendered."""
    rendered = Rendered.read(path)
    if chosen.row["target"] not in rendered.about["targets"]:
        return None
    return bytes_of(rendered.picture("render", "aligned")[rendered.about["targets"].index(chosen.row["target"])])


def second_renders(
    second: tuple[ExperimentResult, dict[str, Path]] | None, targets: list[Chosen]
) -> SecondRenders | None:
    """What another experiment rendered of the chosen targets; second: it, and its files of data/renders by name."""
    if second is None:
        return None
    result, files = second
    renders = {
        chosen.name: other_render(chosen, files[file])
        for chosen in targets
        if (file := f"{chosen.row['episode']}.safetensors") in files
    }
    return SecondRenders(result, {name: picture for name, picture in renders.items() if picture is not None})


def strip(pictures: dict[str, np.ndarray], title: str, note: str) -> Image.Image:
    """Panels in a row under their names, a title above and a note below; small panels are enlarged pixel by pixel."""
    height, width = next(iter(pictures.values())).shape[:2]
    factor = max(1, -(-PANEL_HEIGHT // height))
    width, height = width * factor, height * factor
    sheet = Image.new("RGB", (len(pictures) * (width + GAP) + GAP, height + 3 * LINE + 2 * GAP), STRIP_COLOUR)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.text((GAP, GAP // 2), title, TITLE_COLOUR, font)
    for number, (name, picture) in enumerate(pictures.items()):
        left = GAP + number * (width + GAP)
        pen.text((left, GAP // 2 + LINE), name, NOTE_COLOUR, font)
        sheet.paste(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST), (left, 2 * LINE + GAP))
    pen.text((GAP, height + 2 * LINE + GAP), note, NOTE_COLOUR, font)
    return sheet
