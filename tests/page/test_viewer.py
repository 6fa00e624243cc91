import base64
import gzip
import hashlib
import io
import json
import math
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from scipy.spatial.transform import Rotation

from src.geometry.cameras import quats_to_rotmats
from src.page.viewer import (
    LIBRARY,
    ViewerScene,
    camera_entry,
    chosen_episodes,
    depth_range,
    packed_gaussians,
    still,
    viewer_library,
    viewer_payload,
    viewer_scene,
    viewer_stills,
)
from src.scenes.scene import read_index
from src.splatting.gaussians import Gaussians
from src.splatting.render import render
from src.splatting.sh import rgb_to_dc
from tests.helpers import browser
from tests.helpers.fabricated import SIZE, write_results
from tests.helpers.reported import run


def gaussians(count: int) -> Gaussians:
    draw = torch.Generator().manual_seed(3)
    normal = lambda *shape: torch.randn(shape, generator=draw)
    return Gaussians(
        3 * normal(count, 3),
        normal(count, 4),
        (normal(count, 3) - 4).exp(),
        torch.rand(count, generator=draw),
        rgb_to_dc(torch.rand(count, 1, 3, generator=draw)),
    )


def read_back(entry: dict, unit: float) -> list[dict]:
    """The packed bytes, one Gaussian at a time, as the page's script reads them."""
    data, n = gzip.decompress(base64.b64decode(entry["data"])), entry["count"]
    between = lambda bounds, share: bounds[0] + share * (bounds[1] - bounds[0])
    found = []
    for i in range(n):
        places = struct.unpack_from("<3H", data, 6 * i)
        scales = struct.unpack_from("<3B", data, 6 * n + 3 * i)
        found.append(
            {
                "mean": [unit * math.sinh(between(entry["places"], place / 65535)) for place in places],
                "scale": [math.exp(between(entry["scales"], scale / 255)) for scale in scales],
                "rgba": [value / 255 for value in struct.unpack_from("<4B", data, 9 * n + 4 * i)],
                "quat": np.array(struct.unpack_from("<4b", data, 13 * n + 4 * i)) / 127,
            }
        )
    assert len(data) == 17 * n
    return found


def test_what_the_page_holds_is_the_gaussians_to_within_rounding():
    g = gaussians(50)
    for i, found in enumerate(read_back(packed_gaussians(g), 0.5)):
        assert found["mean"] == pytest.approx(g.means[i].tolist(), abs=1e-3, rel=1e-3)
        assert found["scale"] == pytest.approx(g.scales[i].tolist(), rel=0.02)
        wanted = [*(0.5 + 0.28209479177387814 * g.sh[i, 0]).tolist(), g.opacities[i].item()]
        assert found["rgba"] == pytest.approx(wanted, abs=0.003)
        turn = Rotation.from_quat(found["quat"], scalar_first=True).as_matrix()
        assert np.abs(turn - quats_to_rotmats(g.quats[i]).numpy()).max() < 0.02
    assert packed_gaussians(g) == packed_gaussians(g)


def test_equal_gaussians_are_packed_too():
    g = gaussians(1)
    flat = Gaussians(g.means, g.quats, torch.full((1, 3), 0.25), g.opacities, g.sh)
    assert read_back(packed_gaussians(flat), 0.5)[0]["scale"] == pytest.approx([0.25] * 3)


def test_a_camera_is_its_place_and_turn():
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = Rotation.from_euler("y", 90, degrees=True).as_matrix(), (1, 2, 3)
    entry = camera_entry("input 2", c2w)
    assert entry["position"] == [1, 2, 3]
    assert entry["rotation"] == pytest.approx([0, 0.5**0.5, 0, 0.5**0.5])  # xyzw


def test_the_payload_cannot_end_its_script():
    shown = ViewerScene("</script>", (4, 3), (5.0, 5.0), {"input 1": np.eye(4)}, {"a": gaussians(3)})
    text = viewer_payload([shown])
    assert "<" not in text and json.loads(text)[0]["episode"] == "</script>"


def test_the_library_is_the_published_file_and_gives_its_exports():
    readme = (LIBRARY.parent / "README.md").read_text()
    assert hashlib.sha256(LIBRARY.read_bytes()).hexdigest() in readme
    code = viewer_library()
    assert "Permission is hereby granted" in code and "</script" not in code and not re.search(r"^export", code, re.M)
    assert re.search(r"return \{.*WebGLRenderer: \w+.*\};\n\}$", code, re.DOTALL)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, scenes_per_family=1)
    return folder / "data"


def test_scenes_are_the_first_of_each_family(results, tmp_path):
    assert chosen_episodes(results / "renders") == ["objects__0__close", "rooms__0__close"]
    shutil.copytree(results / "renders", tmp_path / "renders")
    (tmp_path / "renders/rooms__0__close.ply").unlink()
    shutil.copy(tmp_path / "renders/objects__0__close.ply", tmp_path / "renders/objects__0__wide.ply")
    assert chosen_episodes(tmp_path / "renders") == ["objects__0__close", "objects__0__wide"]
    assert chosen_episodes(tmp_path) == []


def test_a_scene_starts_at_the_first_context_and_its_cameras_have_the_prediction_s_scale(results):
    index = {record.id: record for record in read_index(results / "scenes")}
    file = results / "renders/rooms__0__close.ply"
    found = viewer_scene("rooms__0__close", results / "renders", results / "scenes", index, {"this run": file})
    assert list(found.cameras) == ["context 1", "context 2", "target view 001", "target view 002"]
    assert np.allclose(found.cameras["context 1"], np.eye(4)) and found.size == SIZE
    # frame number i of the fabricated scenes stands at 0.08 i, 0.02 i metres; the prediction is 1.25 times as large
    assert np.allclose(found.cameras["target view 002"][:3, 3], 1.25 * np.array([0.16, 0.04, 0]), atol=1e-6)
    assert len(found.models["this run"]) == 2 * SIZE[0] * SIZE[1]


ROOM = "document.readyState == 'complete' && document.querySelector('#room')"
DRAWN = f"({ROOM}?.scrollIntoView(), {ROOM}?.dataset.drawn == '2')"
PLACES = """[...document.querySelectorAll("#room canvas")].map(each => {
  const { x, y, width, height } = each.getBoundingClientRect(); return [x, y, x + width, y + height]; })"""
WAIT = "new Promise(go => setTimeout(go, 2500))"  # sorting and drawing
FOCUS = "document.querySelector('#room canvas').focus({ preventScroll: true })"


def focused(name: str) -> str:
    """Of a button, the focus."""
    buttons = "[...document.querySelectorAll('#room button')]"
    return f"{buttons}.find(each => each.innerText == '{name}').focus({{ preventScroll: true }})"


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """A folder whose reports/ holds a page of fabricated results."""
    folder = tmp_path_factory.mktemp("reported")
    run(folder, scenes_per_family=1)
    return folder


def page_of(folder: Path) -> Path:
    return folder / "reports/summary/index.html"


@browser.needed
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_both_models_fetches_nothing_and_does_not_complain(reported, tmp_path, width):
    page = page_of(reported)
    seen = browser.visit(
        page,
        tmp_path / "profile",
        width,
        DRAWN,
        "document.documentElement.scrollWidth - document.documentElement.clientWidth",
        "innerWidth",
        "document.querySelectorAll('.scenes button').length",
        "document.querySelector('#room').dataset.missing === undefined",
        "getComputedStyle(document.querySelector('#room .missing')).display",
    )
    assert seen.answers == [0, width, 2, True, "none"] and seen.complaints == []
    assert [address for address in seen.requests if not address.startswith(("data:", "blob:"))] == [page.as_uri()]


def shown(picture: bytes, place: list[float]) -> np.ndarray:
    """What a canvas shows, (H, W, 3) in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB").crop([round(side) for side in place])) / 255


@browser.needed
def test_the_keyboard_turns_slides_and_approaches_both_models_and_shows_depth(reported, tmp_path):
    """Depth is compared with that of the Gaussians which are opaque enough to be alone at a pixel, by this project's
    rasteriser and matplotlib."""
    keys = [("ArrowRight",), ("+", "+", "+"), ("Shift+ArrowUp",) * 2]
    moves = [step for each in keys for step in (FOCUS, *map(browser.Press, each), WAIT, browser.Picture())]
    steps = (PLACES, WAIT, browser.Picture(), focused("depth"), browser.Press("Enter"), WAIT, browser.Picture())
    back = (focused("colour"), browser.Press("Space"), WAIT, browser.Picture())
    seen = browser.visit(page_of(reported), tmp_path / "profile", 1280, DRAWN, *steps, *back, *moves)
    pictures = [answer for answer in seen.answers if isinstance(answer, bytes)]
    colour, depth, again, *moved = [[shown(picture, place) for place in seen.answers[0]] for picture in pictures]
    for pane in (0, 1):
        assert np.abs(colour[pane] - depth[pane]).mean() > 0.02 and np.abs(colour[pane] - again[pane]).mean() < 0.002
        series = [again[pane], *(frame[pane] for frame in moved)]
        assert all(np.abs(before - after).mean() > 0.002 for before, after in zip(series, series[1:]))
    assert seen.complaints == []
    data = reported / "data"
    index = {record.id: record for record in read_index(data / "scenes")}
    episode = chosen_episodes(data / "renders")[0]
    scene = viewer_scene(
        episode, data / "renders", data / "scenes", index, {"this run": data / f"renders/{episode}.ply"}
    )
    wanted = depth_picture(scene, depth[0].shape[:2])
    both = wanted.any(-1) & (depth[0].sum(-1) > 0.3)
    assert both.mean() > 0.2
    assert np.abs(wanted - depth[0])[both].mean() < 0.1 < np.abs(wanted - colour[0])[both].mean()


def depth_picture(scene: ViewerScene, size: tuple[int, int]) -> np.ndarray:
    """Depth from the first camera, (*size, 3) in [0, 1], near bright; black where little is in the way."""
    (width, height), (fx, fy) = scene.size, scene.focal
    found = scene.models["this run"]
    K = torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1.0]])
    drawn = render(found, torch.eye(4)[None], K[None], scene.size)
    low, high = np.percentile(found.means[:, 2].numpy(), [2, 98])
    colours = colormaps["viridis"](np.clip((high - drawn.depths[0].numpy()) / (high - low), 0, 1))[..., :3]
    colours[drawn.alphas[0].numpy() < 0.8] = 0
    image = Image.fromarray((255 * colours).astype(np.uint8))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)) / 255


@browser.needed
def test_without_webgl_the_page_shows_pictures_and_a_sentence_in_place_of_a_black_square(reported, tmp_path):
    seen = browser.visit(
        page_of(reported),
        tmp_path / "profile",
        1280,
        f"({ROOM}?.scrollIntoView(), document.readyState == 'complete')",
        "!document.createElement('canvas').getContext('webgl2')",
        "[...document.querySelectorAll('#room .missing img')].map(each => each.naturalWidth * each.offsetHeight > 0)",
        "[...document.querySelectorAll('#room canvas, #room button')].map(each => each.offsetHeight).join('')",
        "document.querySelector('#room').innerText",
        browser.Picture(),
        flags=browser.WITHOUT_WEBGL,
    )
    off, pictures, hidden, words, window = seen.answers
    assert off and pictures == [True] * 4 and set(hidden) <= {"0"} and seen.complaints == []
    assert words.startswith("The scenes cannot be turned here: this browser offers no WebGL 2")
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(window)).convert("RGB")).reshape(-1, 3), axis=0)) > 1000


def test_a_still_is_the_scene_from_its_first_camera():
    """One opaque Gaussian per corner: red left above, and blue right below."""
    places = torch.tensor([[-1.0, -1.0, 4.0], [1.0, 1.0, 4.0]])
    colours = rgb_to_dc(torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]]))
    g = Gaussians(places, torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2, 3), 0.3), torch.full((2,), 0.99), colours)
    scene = ViewerScene("a__b", (32, 16), (16.0, 16.0), {"context 1": np.eye(4)}, {"a model": g})
    picture = still(scene, g)
    assert picture.shape == (16, 32, 3)
    assert picture[4, 12].argmax() == 0 and picture[12, 20].argmax() == 2 and picture[4, 20].max() < 20
    (entry,) = viewer_stills([scene])
    assert entry["words"] == "a · b: a model" and entry["picture"].startswith("data:image/webp;base64,")


def test_depth_is_coloured_over_what_lies_before_the_camera():
    g = gaussians(1000)
    near, far = depth_range(g)
    ahead = sorted(z for z in g.means[:, 2].tolist() if z > 0)
    assert 0 < ahead[0] < near < ahead[len(ahead) // 10] and ahead[-len(ahead) // 10] < far < ahead[-1]
