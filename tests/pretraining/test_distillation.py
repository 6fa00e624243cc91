import numpy as np
import pytest
import torch

from src.pretraining import distillation
from src.pretraining.distillation import Head, SplitImages, agreement_loss, cropped, draw_crops, mean_scores, patch_rows
from tests.helpers.frames import write_photographs


def flat(value: int) -> np.ndarray:
    return np.full((20, 30, 3), value, np.uint8)


def test_photographs_are_those_of_the_split_alone(tmp_path):
    write_photographs(
        tmp_path, {"a": ("train", [flat(10), flat(20)]), "b": ("test", [flat(99)]), "c": ("train", [flat(30)])}
    )
    training = SplitImages(tmp_path, "train")
    assert [round(training[i].mean().item() * 255) for i in range(len(training))] == [10, 20, 30]
    assert training[0].shape == (3, 20, 30)
    assert training.spread(2) == [0, 2] and training.spread(9) == [0, 1, 2]
    with pytest.raises(ValueError, match="no images of split val"):
        SplitImages(tmp_path, "val")


def test_crops_are_windows_of_the_photograph_in_the_grids_shape():
    y, x = np.mgrid[:40, :60]
    image = torch.tensor(np.stack([y, x, y * 60 + x]) / 2400)
    rng, mirrored, areas = np.random.default_rng(0), 0, []
    for grid in [(3, 5), (6, 2), (4, 4)] * 30:
        window = cropped(image, grid, 0.3, rng)
        h, w = window.shape[1:]
        mirrored += bool(window[1, 0, 0] > window[1, 0, -1])
        window = window.flip(2) if window[1, 0, 0] > window[1, 0, -1] else window
        top, left = (round(window[channel, 0, 0].item() * 2400) for channel in (0, 1))
        assert torch.equal(window, image[:, top : top + h, left : left + w])
        unit = min(40 // grid[0], 60 // grid[1])
        assert abs(h / w - grid[0] / grid[1]) < 0.25 * grid[0] / grid[1] and h <= 40 and w <= 60
        areas.append(h * w / (unit**2 * grid[0] * grid[1]))
    assert 20 < mirrored < 70 and min(areas) > 0.2 and max(areas) > 0.8


def test_a_batch_has_one_grid_and_batches_have_many(tmp_path):
    write_photographs(tmp_path, {"a": ("train", [flat(10), flat(200)])})
    photographs, grids, values = SplitImages(tmp_path, "train"), set(), set()
    for step in range(40):
        images, grid = draw_crops(photographs, 3, [2, 4], 0.5, 7, np.random.default_rng(step))
        assert images.shape == (3, 3, 7 * grid[0], 7 * grid[1])
        grids.add(grid)
        values |= {round(image.mean().item() * 255) for image in images}
    assert grids == {(h, w) for h in (2, 3, 4) for w in (2, 3, 4)} and values == {10, 200}
    again, _ = draw_crops(photographs, 3, [2, 4], 0.5, 7, np.random.default_rng(39))
    assert torch.equal(images, again)


def test_rows_are_patches():
    maps = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    found = patch_rows(maps)
    assert all(
        torch.equal(found[(b * 4 + i) * 5 + j], maps[b, :, i, j]) for b in range(2) for i in range(4) for j in range(5)
    )


def test_the_head_starts_at_the_least_squares_map(monkeypatch):
    monkeypatch.setattr(distillation, "RIDGE", 0.0)
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (200, 5)) @ rng.normal(size=(5, 5))
    y = np.concatenate([x @ rng.normal(size=(5, 3)) + rng.normal(size=(200, 3)) + 7, np.full((200, 1), 4.0)], 1)
    pairs = [
        tuple(torch.tensor(part[at : at + 50], dtype=torch.float32) for part in (x, y)) for at in range(0, 200, 50)
    ]
    head = Head(5, 4)
    head.fit(pairs)
    np.testing.assert_allclose(head.mean, y.mean(0), rtol=1e-5)
    np.testing.assert_allclose(head.std, y.std(0), rtol=1e-4, atol=2e-3)
    standard = (y[:, :3] - y.mean(0)[:3]) / y.std(0)[:3]
    design = np.concatenate([x, np.ones((200, 1))], 1)
    best = design @ np.linalg.lstsq(design, standard, rcond=None)[0]
    found = head(torch.tensor(x, dtype=torch.float32)).detach()
    np.testing.assert_allclose(found[:, :3], best, atol=2e-4)
    assert head.target(torch.tensor(y, dtype=torch.float32)).isfinite().all()
    np.testing.assert_allclose(head.target(torch.tensor(y, dtype=torch.float32))[:, :3], standard, atol=1e-4)


def test_loss_and_scores_equal_loops():
    rng = np.random.default_rng(1)
    predicted, target = rng.normal(size=(6, 4)), rng.normal(size=(6, 4)) * 2
    cosines = [p @ t / np.sqrt(p @ p) / np.sqrt(t @ t) for p, t in zip(predicted, target)]
    gaps = abs(predicted - target)
    smooth = np.where(gaps < 1, 0.5 * gaps**2, gaps - 0.5).mean()
    tensors = torch.tensor(predicted), torch.tensor(target)
    assert agreement_loss(*tensors).item() == pytest.approx(0.9 * (1 - np.mean(cosines)) + 0.1 * smooth)
    pairs = [(tensors[0][:2], tensors[1][:2]), (tensors[0][2:], tensors[1][2:])]
    scores = mean_scores(iter(pairs), {"itself": lambda found: found, "nothing": torch.zeros_like})
    assert scores["itself"] == pytest.approx({"squared_error": (gaps**2).mean(), "cosine": np.mean(cosines)})
    assert scores["nothing"] == pytest.approx({"squared_error": (target**2).mean(), "cosine": 0.0})
