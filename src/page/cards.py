"""Cards of chosen targets: their pictures inside the page, and what is known of them."""

import base64
import io

import numpy as np
from PIL import Image

from src.page.findings import Pictures
from src.page.numbers import number
from src.page.pictures import TRUTH

PICTURE_SIDE = 384  # pixels; larger pictures are made smaller for the page


def data_uri(picture: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as an address that holds it."""
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=92, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture_cards(pictures: Pictures) -> list[dict]:
    """A card per chosen target: pictures as data URIs and what is known of them."""
    cards = []
    for chosen, panels in pictures.targets:
        row = chosen.row
        uris = {name: data_uri(picture) for name, picture in panels.items()}
        second = pictures.second and pictures.second.pictures.get(chosen.name)
        cards.append(
            {
                "family": chosen.family,
                "rule": chosen.rule,
                "truth": uris.pop(TRUTH),
                "render": uris.pop("render"),
                "thumbs": list(uris.items()),
                "width": panels["render"].shape[1],
                "height": panels["render"].shape[0],
                "second": None if second is None else data_uri(second),
                "note": f"{row['scene']} · view {row['target']} · {row['bin'].replace('_', ' ')} overlap",
                "score": f"{number(row['psnr_masked'])} dB",
            }
        )
    return cards
