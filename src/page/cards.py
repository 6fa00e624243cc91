"""Cards of chosen targets: their pictures inside the page, and what is known of them."""

import base64
import io

from PIL import Image

from src.page.findings import Pictures, RealPair
from src.page.numbers import NOT_MEASURED, number
from src.page.pictures import TRUTH
from src.page.probe_tables import INPUT_TITLES
from src.page.strip import data_uri


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


PAIR_TITLES = {
    "left": "left photograph, from all Gaussians of the pair (it went in)",
    "right": "right photograph, from all Gaussians of the pair (it went in)",
    "left_from_right": "left photograph, from the Gaussians of the right one's pixels alone",
}


def real_pair_card(pair: RealPair) -> dict:
    """The picture of the one real pair as a data URI, and tables of what was measured on it."""
    found, buffer = pair.summary, io.BytesIO()
    with Image.open(io.BytesIO(pair.picture)) as image:
        width, height = image.size
        image.convert("RGB").save(buffer, "WEBP", quality=90, method=4)

    def cell(scores: dict, name: str, digits: int) -> str:
        return number(scores[name], digits) if name in scores else NOT_MEASURED

    renders = [
        [title, cell(found["renders"][name], "psnr_masked", 2), cell(found["renders"][name], "ssim_masked", 3)]
        for name, title in PAIR_TITLES.items()
    ]
    errors = [
        [title, f"{number(100 * found['point_error'][name], 1)} %"]
        for name, title in (("geometry", "frozen geometry network, no cameras"), ("model", "this model"))
    ]
    matched = [
        [INPUT_TITLES[kind], *(number(shares[name], 3) for name in ("pck_1", "pck_2", "mutual"))]
        for kind, shares in found["correspondence"].items()
    ]
    return {
        "name": found["pair"],
        "picture": "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
        "width": width,
        "height": height,
        "cameras": found["cameras"],
        "resolution": found["resolution"],
        "depth": number(found["median_depth"]),
        "scale": number(found["scale"]),
        "renders": {"head": ["Render", "masked PSNR (dB)", "masked SSIM"], "rows": renders},
        "errors": {"head": ["Points", "median relative error, one scale factor"], "rows": errors},
        "matched": {"head": ["Matches by", "within 1 cell", "within 2 cells", "mutual"], "rows": matched},
    }
