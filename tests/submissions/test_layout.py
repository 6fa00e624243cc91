import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.scenes.scene import View
from src.submissions.layout import Protocol, file_name, write_protocol

PROTOCOL = Protocol(
    [
        {
            "episode": "e",
            "scene": "a b",
            "category": "rooms",
            "bin": "wide",
            "contexts": ["0", "2/x"],
            "targets": ["1"],
        },
        {
            "episode": "f",
            "scene": "a b",
            "category": "rooms",
            "bin": "wide",
            "contexts": ["0", "1"],
            "targets": ["2/x"],
        },
    ],
    (16, 12),
    "ab" * 32,
)


def view(name: str) -> View:
    """A camera turned by 90 degrees about y, one unit further along x for each number."""
    g = torch.Generator().manual_seed(int(name[0]))
    c2w = torch.tensor([[0.0, 0, 1, int(name[0])], [0, 1, 0, 0.5], [-1, 0, 0, 3], [0, 0, 0, 1]])
    depth = torch.full((12, 16), 2.0) if name[0] == "0" else torch.zeros(12, 16)
    K = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]])
    return View(name, torch.rand(3, 12, 16, generator=g), depth, torch.ones(12, 16, dtype=torch.bool), None, K, c2w)


@pytest.fixture
def told(tmp_path) -> Path:
    write_protocol(tmp_path / "told", PROTOCOL, lambda scene, name: view(name))
    return tmp_path / "told"


def test_cameras_stand_in_the_first_context_s_frame(told):
    episode = json.loads((told / "protocol.json").read_text())["episodes"][0]
    first, second = episode["contexts"]
    np.testing.assert_allclose(first["c2w"], np.eye(4), atol=1e-6)
    # two units along the world's x are two along the camera's z, which points there
    np.testing.assert_allclose(np.array(second["c2w"])[:3, 3], [0, 0, 2], atol=1e-6)
    np.testing.assert_allclose(np.array(episode["targets"][0]["c2w"])[:3, 3], [0, 0, 1], atol=1e-6)
    assert episode["targets"][0]["K"] == view("1").K.tolist()


def test_contexts_are_written_and_targets_are_not(told):
    episodes = json.loads((told / "protocol.json").read_text())["episodes"]
    for about in episodes:
        for context in about["contexts"]:
            pixels = np.asarray(Image.open(told / context["image"]), float) / 255
            assert np.abs(pixels.transpose(2, 0, 1) - view(context["name"]).image.numpy()).max() <= 0.5001 / 255
            assert ("depth" in context) == (context["name"] == "0")
    assert np.load(told / episodes[0]["contexts"][0]["depth"]).tolist() == view("0").depth.tolist()
    assert sorted(path.name for path in told.rglob("*.png")) == ["0.png", "1.png", "2%2Fx.png"]  # 1 is a context of f
    assert episodes[1]["targets"][0]["picture"] == "f/2%2Fx.png" == f"f/{file_name('2/x')}"


def test_the_protocol_s_name_changes_with_what_is_scored():
    names = {
        PROTOCOL.name,
        Protocol(PROTOCOL.episodes[:1], (16, 12), PROTOCOL.scenes).name,
        Protocol(PROTOCOL.episodes, (12, 16), PROTOCOL.scenes).name,
        Protocol(PROTOCOL.episodes, (16, 12), "cd" * 32).name,
    }
    assert len(names) == 4
