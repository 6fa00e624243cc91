"""Shared by all tests: the reference fixtures, and one thread each, because a test process runs on every core."""

import os
import signal
from pathlib import Path

# Commands that tests start have threads of their own: they must sleep while they wait, or two test processes on two
# cores spin against each other and take four times as long. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from safetensors import safe_open

from tests.helpers.browser import pytest_terminal_summary  # noqa: F401
from tests.helpers.peer_lists import root  # noqa: F401
from tests.helpers.publishing import repository  # noqa: F401
from tests.helpers.weights import weights_folder  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = (ROOT / "tests/data/fixtures", ROOT.parent / "shared/fixtures")

torch.set_num_threads(1)

# minutes each: they begin, so that at the end no process waits for another's long file
LONGEST = (
    "test_pipeline.py",
    "test_pipeline_co3d.py",
    "test_first_hour.py",
    "test_every_backbone.py",
    "test_report.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def fixture_path(name: str) -> Path:
    """A file of the reference fixtures, of this repository or beside the checkout; without it the test is skipped."""
    for folder in FIXTURES:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"the reference fixture {name} is neither in tests/data/fixtures nor in ../shared/fixtures")


def load_fixture(name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of fixture `name`, for example "mast3r/rope2d.safetensors"."""
    with safe_open(fixture_path(name), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}


def assert_reference(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """`found` differs from a reference's tensor by at most 3e-5 of the largest magnitude in it."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=3e-5 * wanted.abs().max().item())


@pytest.fixture
def handlers():
    """What is done about signals ends with the test."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)
