import base64
import gzip
import hashlib
import json
import math
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from src.geometry.cameras import quats_to_rotmats
from src.page.viewer import (
    LIBRARY,
    ViewerScene,
    camera_entry,
    chosen_episodes,
    packed_gaussians,
    viewer_library,
    viewer_payload,
    viewer_scene,
)
from src.scenes.scene import read_index
from src.splatting.gaussians import Gaussians
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


@browser.needed
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_both_models_fetches_nothing_and_does_not_complain(tmp_path, width):
    run(tmp_path, scenes_per_family=1)
    page = tmp_path / "reports/summary/index.html"
    room = "document.readyState == 'complete' && document.querySelector('#room')"
    seen = browser.visit(
        page,
        tmp_path / "profile",
        width,
        f"({room}?.scrollIntoView(), {room}?.dataset.drawn == '2')",
        "document.documentElement.scrollWidth - document.documentElement.clientWidth",
        "innerWidth",
        "document.querySelectorAll('.scenes button').length",
        "document.querySelector('#room').dataset.missing === undefined",
    )
    assert seen.answers == [0, width, 2, True] and seen.complaints == []
    assert [address for address in seen.requests if not address.startswith(("data:", "blob:"))] == [page.as_uri()]
