import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from src import real_pair
from src.geometry.cameras import unproject
from src.inference.motorcycle import motorcycle
from src.splatt3r.samples import Sample
from tests.helpers.trained import SIZE, inside, train

NUMBERS = ("psnr", "psnr_masked", "ssim", "ssim_masked")


def measured(tmp_path_factory, *overrides: str):
    """The folder of a miniature model after the stage, and its summary."""
    folder = tmp_path_factory.mktemp("trained")
    config = train(folder, *overrides)
    with inside(folder):
        real_pair.main(config)
    return folder, config, json.loads((folder / "data/real_pair/summary.json").read_text())


@pytest.fixture(scope="module")
def posed(tmp_path_factory):
    return measured(tmp_path_factory, "model.cameras=posed", "model.backbone=truth")


def test_a_posed_model_is_measured_on_the_pair(posed):
    folder, _, found = posed
    assert found["cameras"] == "given" and found["resolution"] == list(SIZE) and "Middlebury" in found["pair"]
    assert found["median_depth"] == pytest.approx(2.6, abs=0.2) and 0.8 < found["known"] < 1
    for scores in found["renders"].values():
        assert set(scores) == set(NUMBERS) and 3 < scores["psnr_masked"] < 40
    assert found["renders"].keys() == {"left", "right", "left_from_right"}
    assert 0 < found["point_error"]["model"] < 1 and 0 < found["point_error"]["geometry"] < 1
    assert found["correspondence"].keys() == {"tokens", "features"} and found["absent"] == {}
    assert all(0 <= each["pck_1"] <= each["pck_2"] <= 1 for each in found["correspondence"].values())
    # true depth finds its place again better than chance, of 12 cells in 3 rows
    assert found["correspondence"]["features"]["pck_2"] > 0.3
    with Image.open(folder / "data/real_pair/pictures.png") as picture:
        assert picture.size[0] > 7 * SIZE[0] and np.asarray(picture.convert("RGB")).std() > 20


def test_the_same_bytes_come_out_again(posed):
    folder, config, _ = posed
    before = {path.name: path.read_bytes() for path in (folder / "data/real_pair").iterdir()}
    with inside(folder):
        real_pair.main(config)
    assert {path.name: path.read_bytes() for path in (folder / "data/real_pair").iterdir()} == before
    assert before.keys() == {"summary.json", "pictures.png"}


def test_an_unposed_model_of_true_points_has_no_point_error(tmp_path_factory):
    _, _, found = measured(tmp_path_factory, "model.cameras=unposed", "model.backbone=oracle")
    assert found["cameras"] == "not given" and found["correspondence"].keys() == {"tokens"}
    assert found["point_error"]["model"] < 1e-5 < found["point_error"]["geometry"]


def test_errors_of_points_are_shares_of_their_distance_after_one_factor():
    views = motorcycle(SIZE)
    own = unproject(views.depth, views.K)
    truth = own + torch.tensor([0.0, 0.193001]).view(2, 1, 1, 1) * torch.tensor([1.0, 0.0, 0.0])
    assert real_pair.point_error(1.7 * truth, views) < 1e-5
    stretched = truth.clone()
    stretched[:, : SIZE[1] // 4] *= 1.5  # fewer than half of the pixels: the factor and the median are of the others
    assert real_pair.point_error(stretched, views) < 1e-5
    aside = torch.cross(truth, torch.tensor([0.0, 1.0, 0.0]).expand_as(truth), dim=-1)
    aside *= 0.1 * truth.norm(dim=-1, keepdim=True) / aside.norm(dim=-1, keepdim=True)
    # at right angles: lengths grow by the root of 1.01, which the factor takes back, in both directions
    factor = 1.01**0.5
    wanted = ((1 - 1 / factor) ** 2 + (0.1 / factor) ** 2) ** 0.5
    assert real_pair.point_error(truth + aside, views) == pytest.approx(wanted, rel=1e-4)


def test_features_that_are_the_same_everywhere_match_nothing():
    views = motorcycle((64, 48))
    sample = Sample(views, views, torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0)))
    assert real_pair.correspondence(sample, (3, 4)).keys() == {"tokens"}
    constant = dataclasses.replace(sample, features=torch.ones(2, 5, 3, 4))
    assert real_pair.correspondence(constant, (3, 4)).keys() == {"tokens"}


def test_what_the_other_photograph_shows_is_between_its_borders():
    views = motorcycle((128, 128))
    seen = real_pair.seen_by_other(views)
    assert 0.5 < seen[0].float().mean() < 0.95 and 0.5 < seen[1].float().mean() < 0.95
    assert not seen[0, :, :5].any() and not seen[1, :, -5:].any()
