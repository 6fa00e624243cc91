import re

import pytest
import torch

from src.splatting import reference
from src.splatting.cpu import rasterize
from src.timing import rasterizers
from src.timing.rasterizers import disagreement, forward_and_backward, intersections, same_bits, scene, timed_line


def test_the_scene_has_two_gaussians_per_pixel_and_fills_the_picture():
    arguments = scene(48)
    assert len(arguments[0]) == 2 * 48 * 48
    _, alphas, _ = rasterize.rasterize(*arguments)
    assert alphas.min() > 0.9


def test_intersections_grow_with_the_footprints():
    narrow, wide = intersections(scene(48, 0.5)), intersections(scene(48, 4.0))
    assert 2 * 48 * 48 <= narrow < wide <= 9 * 2 * 48 * 48


def test_the_two_rasterisers_agree_on_it():
    arguments = scene(32)
    weights = [torch.ones(shape) for shape in ((1, 3, 32, 32), (1, 32, 32), (1, 32, 32))]
    ours, theirs = (forward_and_backward(r, arguments, weights) for r in (rasterize.rasterize, reference.rasterize))
    assert disagreement(ours[2], theirs[2]) < 1e-3
    assert min(*ours[:2], *theirs[:2]) > 0


def test_threads_that_drew_other_bits_would_be_noticed(monkeypatch):
    arguments = scene(32)
    weights = [torch.ones(shape) for shape in ((1, 3, 32, 32), (1, 32, 32), (1, 32, 32))]
    before, honest = torch.get_num_threads(), rasterize.rasterize
    if same_bits(arguments, weights) is None:
        pytest.skip("no second thread to test with")
    assert same_bits(arguments, weights)
    monkeypatch.setattr(
        rasterize, "rasterize", lambda means, *rest: honest(means * (1 + 1e-6 * torch.get_num_threads()), *rest)
    )
    assert not same_bits(arguments, weights)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("available, pattern", [(2**40, r"\d+\.\dx  \de-0\d$"), (0, "torch not run")])
def test_a_line_holds_both_or_says_why_not(monkeypatch, available, pattern):
    monkeypatch.setitem(rasterizers.REPEATS, 32, 2)
    memory = type("Memory", (), {"available": available})
    monkeypatch.setattr(rasterizers.psutil, "virtual_memory", lambda: memory)
    assert re.search(pattern, timed_line(32))


def test_a_line_without_torch():
    assert timed_line(112, 1.0, against_torch=False).split()[:3] == ["112", "25088", "1"]
