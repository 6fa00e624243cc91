"""Panels of pictures, (H, W, 3) uint8: images, errors, depth; and a strip of them under their names."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ERROR_RANGE = 0.5  # mean absolute error over RGB at which the error map is brightest
DEPTH_COLOURS = "viridis"
UNSEEN_COLOUR = (96, 96, 96)  # error map outside the mask
PICTURE_SIDE = 384  # pixels; larger pictures are made smaller for the page
PANEL_HEIGHT, GAP, LINE = 128, 6, 18  # pixels of a strip: least panel height, space between, height of a line of words
STRIP_COLOUR, TITLE_COLOUR, NOTE_COLOUR = (255, 255, 255), (25, 28, 32), (110, 116, 124)


def bytes_of(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8, clamped"""
    return np.rint(image.clamp(0, 1).numpy().transpose(1, 2, 0) * 255).astype(np.uint8)


def data_uri(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as an address that holds it."""
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=92, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


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
    panel = coloured(-depth, -high, -low, DEPTH_COLOURS)
    panel[depth <= 0] = 0
    return panel


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
