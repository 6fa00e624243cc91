"""The notebook of the documents, executed: it needs nothing but the repository, and leaves the work tree alone."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.repository import ROOT, run

NOTEBOOK = ROOT / "docs/first_hour.ipynb"


def outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Of every code cell: the richest form of each thing that it shows, progress apart."""
    forms = ("image/png", "text/markdown", "text/plain")
    return [
        [next(form for form in forms if form in shown.data) for shown in cell.outputs if "data" in shown]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def table(notebook: nbformat.NotebookNode) -> str:
    (text,) = [
        shown.data["text/markdown"]
        for cell in notebook.cells
        for shown in cell.get("outputs", [])
        if "text/markdown" in shown.get("data", {})
    ]
    return text


def untouched() -> str:
    """What Git says of the files that a run would change if it ran in the work tree."""
    return run(ROOT, "git", "status", "--porcelain", "docs", "reports", "params.yaml", "dvc.lock").stdout


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> nbformat.NotebookNode:
    folder = tmp_path_factory.mktemp("first_hour")
    before, notebook = untouched(), nbformat.read(NOTEBOOK, 4)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            patch.setenv(name, str(folder))
        place = {"metadata": {"path": str(NOTEBOOK.parent)}}
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources=place).execute()
    assert untouched() == before
    return notebook


def test_two_experiments_are_compared_plotted_and_looked_at(executed):
    text = table(executed)
    assert re.search(r"^\| base \| MASt3R only .*\| reference \|", text, re.M)
    assert re.search(r"^\| truth \| true depth and normals .*\| [+−]\d\.\d\d \[\S+ \S+\] \|", text, re.M)
    assert re.search(r"^truth: .* in 5 scenes, 1 seed", text, re.M)
    assert [forms for forms in outputs(executed) if "image/png" in forms] == [["image/png"], ["image/png"]]


def test_the_committed_outputs_are_of_these_cells(executed):
    """Digits may differ between processors; what is shown, and of how many targets, may not."""
    committed = nbformat.read(NOTEBOOK, 4)
    assert outputs(committed) == outputs(executed)
    numbers = re.compile(r"n = \d+ in \d+ scenes")
    assert numbers.findall(table(committed)) == numbers.findall(table(executed)) != []
    assert not any(
        shown.output_type in ("stream", "error") for cell in committed.cells for shown in cell.get("outputs", [])
    )
