import numpy as np
import pytest
import torch

from src.probes.regression import Moments, fit_ridge, principal_axes, solve, squared_error


def rows(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(count, 4, generator=generator), 3 + 2 * torch.randn(count, 3, generator=generator)
    noise = torch.randn(count, 2, generator=generator)
    y = torch.cat([a[:, :1] - b[:, 1:2], a[:, 2:3] * 2], 1) + 0.3 * noise
    return {"a": a, "b": b, "same": torch.full((count, 2), 0.7), "y": y}


def collected(parts: list[dict[str, torch.Tensor]]) -> Moments:
    found = Moments()
    for part in parts:
        found.add(part)
    return found


def parts_of(data: dict[str, torch.Tensor], size: int) -> list[dict[str, torch.Tensor]]:
    count = len(data["a"])
    return [{name: x[start : start + size] for name, x in data.items()} for start in range(0, count, size)]


@pytest.mark.parametrize("penalty", [1e-5, 0.1, 10.0])
def test_the_solution_is_numpys(penalty):
    data = rows(200)
    found = solve(collected([data]), ["a", "b"], "y", penalty)
    x = np.concatenate([data["a"], data["b"]], 1).astype(np.float64)
    y = data["y"].numpy().astype(np.float64)
    standard = (x - x.mean(0)) / x.std(0)
    # ridge regression as least squares with one more row per input
    stacked = np.vstack([standard, np.sqrt(penalty * len(x)) * np.eye(7)])
    wanted, *_ = np.linalg.lstsq(stacked, np.vstack([y - y.mean(0), np.zeros((7, 2))]), rcond=None)
    np.testing.assert_allclose(found.weight.numpy(), wanted, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found(data).numpy(), standard @ wanted + y.mean(0), rtol=1e-8, atol=1e-9)


def test_a_stream_gives_what_all_at_once_gives():
    data = rows(300)
    whole, stream = collected([data]), collected(parts_of(data, 17))
    for penalty in (1e-5, 1.0):
        a, b = (solve(moments, ["a", "b"], "y", penalty) for moments in (whole, stream))
        assert torch.allclose(a.weight, b.weight, rtol=1e-9, atol=1e-9)


def test_the_error_is_that_of_the_rows():
    training, other = rows(150), rows(80, seed=1)
    found = solve(collected([training]), ["a", "b", "same"], "y", 0.01)
    wanted = (found(other) - other["y"].double()).square().sum(1).mean().item()
    assert squared_error(collected(parts_of(other, 9)), found, "y") == pytest.approx(wanted, rel=1e-9)


def test_the_penalty_is_the_one_that_validation_likes_best():
    training, validation = collected([rows(12)]), collected([rows(200, seed=1)])
    best = fit_ridge(training, validation, ["a", "b"], "y")
    from src.probes.regression import PENALTIES

    errors = [squared_error(validation, solve(training, ["a", "b"], "y", p), "y") for p in PENALTIES]
    assert squared_error(validation, best, "y") == min(errors) and len(set(errors)) == len(errors)


def test_inputs_that_never_change_add_exactly_nothing():
    data = rows(100)
    moments = collected([data])
    without, with_them = (solve(moments, names, "y", 0.1) for names in (["a", "b"], ["a", "b", "same"]))
    assert torch.equal(without(data), with_them(data))
    assert (with_them.inverse_sd[-2:] == 0).all() and (with_them.weight[-2:] == 0).all()


def test_principal_components_are_those_of_a_singular_value_decomposition():
    """numpy's, of the rows themselves, up to signs; their moments are those of the projected rows."""
    data = rows(200)
    found = collected([data])
    axes = principal_axes(found, "a", 2)
    standard = (data["a"].numpy() - data["a"].numpy().mean(0)) / data["a"].numpy().std(0)
    left, sizes, _ = np.linalg.svd(standard.astype(np.float64), full_matrices=False)
    made = data["a"].double() @ axes
    np.testing.assert_allclose((made - made.mean(0)).abs(), np.abs(left[:, :2] * sizes[:2]), atol=1e-5)
    again = collected([data | {"components": made}])
    torch.testing.assert_close(found.projected("a", axes, "components").products, again.products)
    assert (principal_axes(found, "same", 2) == 0).all()
