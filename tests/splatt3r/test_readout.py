import pytest
import torch

from src.splatt3r.readout import (
    CELLS,
    DepthReadout,
    by_patch,
    cell_log_depth,
    corrected_depth,
    patch_inputs,
    read_solution,
    write_solutions,
)

GRID = 2, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_sub_cells_are_grouped_as_the_readout_puts_them_back():
    cells = random(2, 8, 12)
    rows = by_patch(cells)
    assert rows.shape == (2, 6, 16)
    assert torch.equal(rows[1, 4].reshape(4, 4), cells[1, 4:8, 4:8])  # second row of patches, second column
    readout = DepthReadout(16)
    readout.load_solution(
        {"mean": torch.zeros(16), "inverse_sd": torch.ones(16), "weight": torch.eye(16), "bias": torch.zeros(16)}
    )
    assert torch.equal(readout(rows, GRID), cells)


def test_a_new_readout_corrects_nothing():
    depth = 1 + random(2, 32, 48)
    inputs = patch_inputs(random(2, 6, 5), random(2, 6, 7), depth, torch.tensor([1.0, 2.0]), random(2, 3, 4, 5), GRID)
    assert inputs.shape == (2, 6, 5 + 7 + 16 + 5 + 3)
    readout = DepthReadout(inputs.shape[-1])
    assert (readout(inputs, GRID) == 0).all()
    assert torch.equal(corrected_depth(depth, readout(inputs, GRID)), depth)


def test_a_correction_that_is_the_same_everywhere_scales_depth():
    depth = 1 + random(1, 32, 48)
    assert torch.allclose(corrected_depth(depth, torch.full((1, 8, 12), 0.3)), depth * torch.tensor(0.3).exp())


def test_a_smooth_correction_is_interpolated_and_an_edge_is_kept():
    flat = torch.full((1, 32, 32), 2.0)
    ramp = torch.linspace(0, 0.7, 8).expand(1, 8, 8)
    wanted = torch.nn.functional.interpolate(ramp[None], (32, 32), mode="bilinear")[0].exp() * 2
    assert torch.allclose(corrected_depth(flat, ramp), wanted, rtol=1e-5)
    step = flat.clone()
    step[..., 16:] = 4.0  # an edge between sub-cells: each side takes the correction of its own
    correction = torch.zeros(1, 8, 8)
    correction[..., 4:] = 0.5
    found = corrected_depth(step, correction)
    assert torch.allclose(found[..., :16], flat[..., :16]) and torch.allclose(
        found[..., 16:], step[..., 16:] * torch.tensor(0.5).exp()
    )


def test_scale_and_unit_of_depth_do_not_matter_together():
    depth = 1 + random(1, 32, 48)
    parts = random(1, 6, 5), random(1, 6, 7)
    first = patch_inputs(*parts, depth, torch.tensor([1.0]), None, GRID)
    second = patch_inputs(*parts, depth * 3, torch.tensor([3.0]), None, GRID)
    assert torch.allclose(first, second, atol=1e-6)
    assert torch.allclose(first[0, 0, 12:28].reshape(4, 4), cell_log_depth(depth, GRID)[0, :CELLS, :CELLS])


def test_inputs_that_never_change_do_not_even_change_rounding():
    inputs = random(1, 6, 40, seed=1)
    solution = {
        "mean": random(40, seed=2),
        "inverse_sd": 1 + random(40, seed=3),
        "weight": random(40, 16, seed=4),
        "bias": random(16, seed=5),
    }
    plain = DepthReadout(40)
    plain.load_solution(solution)
    wider = DepthReadout(47)
    more = {name: torch.cat([x, torch.zeros(7, *x.shape[1:])]) for name, x in solution.items() if name != "bias"}
    wider.load_solution(more | {"bias": solution["bias"]})
    assert torch.equal(plain(inputs, GRID), wider(torch.cat([inputs, torch.ones(1, 6, 7)], -1), GRID))


def test_solutions_are_kept_by_what_they_read(tmp_path):
    path = tmp_path / "readout.safetensors"
    write_solutions(path, {"tokens": {"bias": torch.ones(16)}, "both": {"bias": torch.zeros(16)}})
    assert torch.equal(read_solution(path, "tokens")["bias"], torch.ones(16)) and len(read_solution(path, "both")) == 1
    write_solutions(path, {})
    assert read_solution(path, "both") == {}


def test_a_solution_of_another_width_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        DepthReadout(3).load_solution(
            {
                "mean": torch.zeros(4),
                "inverse_sd": torch.zeros(4),
                "weight": torch.zeros(4, 16),
                "bias": torch.zeros(16),
            }
        )
