from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from src import relative_pose
from src.episodes.episodes import read_episodes
from src.mast3r.network import Mast3r
from src.relative_pose import PoseError
from src.scenes.scene import Scene
from src.splatt3r.samples import Sample, Views
from tests.helpers.frozen import before_the_backbone, extract_backbone, settings
from tests.helpers.miniatures import computing_as_before
from tests.helpers.networks import SMALL, generator

ROWS = [
    ("no motion", "–"),
    ("constant features", "true"),
    ("constant features", "fitted"),
    ("encoder tokens", "true"),
    ("encoder tokens", "fitted"),
    ("points (PnP)", "true"),
    ("points (PnP)", "fitted"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = before_the_backbone(tmp_path_factory.mktemp("poses"))
    extract_backbone(folder, "model.backbone=constant")
    return folder


def written(threads: int) -> dict[str, bytes]:
    with computing_as_before():
        relative_pose.main(settings(f"threads={threads}"))
    return {path.name: path.read_bytes() for path in Path("reports/relative_pose").iterdir()}


def test_rows_stand_in_order_and_bytes_do_not_depend_on_threads(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    files = written(1)
    assert files.keys() == {"table.csv", "table.md"} and files == written(2)
    lines = files["table.md"].decode().splitlines()
    assert [tuple(line.removeprefix("| ").split(" | ")[:2]) for line in lines[2:]] == ROWS
    assert capsys.readouterr().out == 2 * files["table.md"].decode()


def test_failures_are_180_degrees_and_counted_and_no_motion_is_off_by_the_true_rotation(folder, monkeypatch):
    monkeypatch.chdir(folder)
    files, episodes = written(1), read_episodes("data/scenes", "test")
    rows = files["table.csv"].decode().splitlines()
    table = {tuple(line.split(",")[:2]): line.split(",") for line in rows[1:]}
    names = rows[0].split(",")
    value = lambda row, name: float(table[row][names.index(name)])
    for kind in ("true", "fitted"):
        row = "constant features", kind
        assert value(row, "rotation") == value(row, "direction") == 180 and value(row, "auc_20") == 0
        assert value(row, "failed") == value(row, "pairs") == len(episodes)
    scenes: dict[str, list[float]] = {}
    for episode in episodes:
        scene = Scene.open(f"data/scenes/scenes/{episode.scene}.safetensors")
        first, second = (
            Rotation.from_matrix(scene.view(name, (64, 64)).c2w[:3, :3].double().numpy()) for name in episode.contexts
        )
        scenes.setdefault(episode.scene, []).append(np.degrees((first.inv() * second).magnitude()))
    wanted = np.mean([np.mean(each) for each in scenes.values()])
    assert value(("no motion", "–"), "rotation") == pytest.approx(wanted, abs=1e-3)
    assert value(("no motion", "–"), "direction") == 90 and value(("no motion", "–"), "failed") == 0


def test_a_pair_counts_by_the_larger_of_its_angles():
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = Rotation.from_euler("y", 4, degrees=True).as_matrix(), [1, 0, 0]
    true = np.eye(4)
    true[:3, 3] = [np.cos(np.radians(3)), np.sin(np.radians(3)), 0]
    error = PoseError.of(turn, true)
    assert (error.rotation, error.direction, error.failed) == (pytest.approx(4), pytest.approx(3), False)
    assert error.share(5) == pytest.approx(0.2) and error.share(20) == pytest.approx(0.8)


def test_descriptors_are_matched_where_a_network_has_them():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Mast3r(SMALL).eval()
    network.init_weights(generator())
    pair = torch.rand(1, 2, 3, 64, 64, generator=generator())
    K = torch.tensor([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]]).expand(1, 2, 3, 3)
    views = Views(pair, torch.ones(1, 2, 64, 64), torch.ones(1, 2, 64, 64) > 0, K, torch.eye(4).expand(1, 2, 4, 4))
    with torch.inference_mode():
        tokens = torch.stack([network.encode(pair[:, view] * 2 - 1) for view in range(2)], 1)
        found = relative_pose.pair_poses(network, Sample(views, views, tokens), "unused")
    assert [name for name, kind in found if kind == "true"] == ["encoder tokens", "MASt3R descriptors", "points (PnP)"]
