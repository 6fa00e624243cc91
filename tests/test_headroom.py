import math
from pathlib import Path

import numpy as np
import pytest
import torch

from src import headroom
from src.episodes.episodes import read_episodes
from src.scenes.scene import Scene
from tests.helpers.compositor import composite
from tests.helpers.frozen import before_the_backbone, extract_backbone, settings
from tests.helpers.loops import visible_by_loop
from tests.helpers.miniatures import computing_as_before

SIZE = (32, 16)
SMALL = "datasets.procedural.resolution=[32,16]", "model.backbone=none"
ROWS = [
    "as predicted",
    "true distances",
    "true directions",
    "view 1 true",
    "view 2 true",
    "all true",
    "PnP with fitted K",
    "PnP with true K",
    "PnP with true K and depth",
    "posed",
    "posed, views compared",
    "posed, patches true",
    "posed, 4×4 cells true",
    "posed, cells interpolated",
    "posed, true with 5 % noise",
    "posed, true with 2 % noise",
    "posed, true with 0 % noise",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = before_the_backbone(tmp_path_factory.mktemp("headroom"), *SMALL)
    extract_backbone(folder, *SMALL)
    return folder


def written(threads: int) -> dict[str, bytes]:
    with computing_as_before():
        headroom.main(settings(*SMALL, f"threads={threads}"))
    return {path.name: path.read_bytes() for path in Path("reports/headroom").iterdir()}


@pytest.fixture
def pairs(folder, monkeypatch) -> list:
    """Each pair's scores, and its episode."""
    monkeypatch.chdir(folder)
    episodes = read_episodes("data/scenes", "test")
    with computing_as_before():
        return list(zip(headroom.score_pairs(settings(*SMALL), episodes), episodes))


def test_what_is_made_true_has_no_error_and_the_rest_keeps_its_own(pairs):
    for scores, _ in pairs:
        errors = {name: score and score.errors for name, score in scores.items()}
        for name in ("all true", "posed, true with 0 % noise"):
            assert max(errors[name]) < 1e-5 and scores[name].psnr == pytest.approx(scores["all true"].psnr, abs=0.01)
        first, second = errors["as predicted"]
        assert errors["view 1 true"] == (pytest.approx(0, abs=1e-6), second) and second > 0.001
        assert errors["view 2 true"] == (first, pytest.approx(0, abs=1e-6)) and first > 0.001
        if pnp := errors["PnP with true K and depth"]:
            assert pnp[0] < 1e-5 < pnp[1]
        half = 0.6745 * 0.05  # of the absolute values of a normal distribution, along view 1's rays
        assert errors["posed, true with 5 % noise"][0] == pytest.approx(half, rel=0.1)


def test_rows_stand_in_order_and_bytes_do_not_depend_on_threads(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    first = written(1)
    assert first.keys() == {"table.csv", "table.md", "chart.svg"} and first == written(2)
    lines = first["table.md"].decode().splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == ROWS
    assert [line.split(",")[0].strip('"') for line in first["table.csv"].decode().splitlines()[1:]] == [
        name.split(",")[0] for name in ROWS
    ]
    assert capsys.readouterr().out == 2 * first["table.md"].decode()


def in_metres(view, c2w, first) -> np.ndarray:
    """The points that a view shows, one by one, in the frame of the camera `first`."""
    points = np.zeros((*SIZE[::-1], 3))
    for row, column in np.ndindex(*SIZE[::-1]):
        ray = np.linalg.solve(view.K.double().numpy(), [column + 0.5, row + 0.5, 1])
        points[row, column] = (np.linalg.inv(first) @ c2w @ np.append(ray * view.depth[row, column].item(), 1))[:3]
    return points


def test_the_score_of_true_points_is_what_a_naive_rasteriser_gives(pairs):
    scores, episode = pairs[0]
    scene = Scene.open(f"data/scenes/scenes/{episode.scene}.safetensors")
    views = [scene.view(name, SIZE) for name in episode.contexts]
    target = scene.view(episode.targets[0], SIZE)
    first, second, there = (view.c2w.double().numpy() for view in (*views, target))
    points = np.concatenate([in_metres(view, c2w, first).reshape(-1, 3) for view, c2w in zip(views, (first, second))])
    colours = np.concatenate([view.image.numpy().reshape(3, -1).T for view in views])
    focal, count = views[0].K[0, 0].item(), len(points)
    image, *_ = composite(
        points,
        np.tile([1.0, 0, 0, 0], (count, 1)),
        np.repeat(0.5 * np.linalg.norm(points, axis=1)[:, None] / focal, 3, 1),
        np.full(count, 0.999),
        colours,
        np.linalg.inv(np.linalg.inv(first) @ there),
        target.K.numpy(),
        *SIZE,
        near=0.02,
    )
    shown = in_metres(target, there, np.eye(4))
    seen = [
        visible_by_loop(shown, view.depth.numpy(), view.K.numpy(), view.c2w.double().numpy(), 0.1, False)
        for view in views
    ]
    mask = (seen[0] | seen[1]) & (target.depth.numpy() > 0) & target.valid.numpy()
    error = (np.clip(image, 0, 1) - target.image.numpy())[:, mask]
    assert mask.any() and scores["all true"].psnr[0] == pytest.approx(-10 * math.log10((error**2).mean()), abs=0.02)


def exact_pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (2, 24, 32, 3) of a bent wall in view 1's frame, as two cameras of one K see it; K; depth."""
    K = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
    angle, shift = 0.1, np.array([0.3, -0.1, 0.05])
    turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    points, depth = torch.zeros(2, 24, 32, 3), torch.zeros(2, 24, 32)
    for view, row, column in np.ndindex(2, 24, 32):
        ray = np.array([(column + 0.5 - 16) / 40, (row + 0.5 - 12) / 40, 1])
        z = 2 + 0.5 * math.sin(0.4 * column) + 0.3 * math.cos(0.5 * row)
        points[view, row, column] = torch.tensor((turn @ (z * ray) + shift) if view else z * ray)
        depth[view, row, column] = z
    return points, K.expand(2, 3, 3), depth


def test_exact_points_stay_where_they_are_when_put_on_the_rays_of_cameras_found_from_them():
    points, K, depth = exact_pair()
    for name, found in headroom.pnp_points(points, K, depth).items():
        torch.testing.assert_close(found, points, atol=1e-4, rtol=0, msg=name)


def test_points_that_fit_no_camera_have_no_row():
    points, K, depth = exact_pair()
    points[1] = torch.randn(24, 32, 3, generator=torch.Generator().manual_seed(0))
    assert set(headroom.pnp_points(points, K, depth).values()) == {None}


def test_cells_get_the_true_median_and_those_without_truth_stay():
    generator = torch.Generator().manual_seed(0)
    depth, truth = (1 + torch.rand(2, 12, 16, generator=generator) for _ in range(2))
    truth[1, :6, 8:] = 0
    found = headroom.times_cells(depth, truth, 2, 2).numpy()
    for view, row, column in np.ndindex(2, 2, 2):
        place = view, slice(6 * row, 6 * row + 6), slice(8 * column, 8 * column + 8)
        if (view, row, column) == (1, 0, 1):
            assert (found[place] == depth.numpy()[place]).all()
        else:
            assert np.sort(found[place].ravel())[23] == pytest.approx(np.sort(truth.numpy()[place].ravel())[23])


def test_rows_that_some_pairs_lack_are_compared_on_the_others(pairs):
    episodes = [episode for _, episode in pairs]
    own, other = headroom.Score((0.1, 0.2), [20.0, 22.0]), headroom.Score((0.3, None), [10.0, 13.0])
    row = headroom.summarise_row({0: own}, {0: other, 1: own}, episodes, 0.95)
    assert row.pairs == 1 and row.psnr.mean == 21 and row.over.mean == 9.5 and row.errors[1].mean == 0.2
    assert headroom.summarise_row({0: other}, None, episodes, 0.95).errors[1] is None


def test_pairs_without_depth_are_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(headroom, "score_pairs", lambda *_: iter([{}, {}]))
    with computing_as_before(), pytest.raises(ValueError, match="No pair of eval.split=test has depth"):
        headroom.main(settings(*SMALL))
