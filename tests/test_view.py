import os
import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import torch

from src.geometry.cameras import covariances
from src.renders.gaussian_file import write_gaussians
from src.renders.ply import write_ply
from src.view import DISTANCE, main, serve
from tests.helpers.gaussians import random_gaussians
from tests.helpers.repository import ROOT


@pytest.fixture
def scenes(tmp_path):
    """Two files, and what is in them."""
    found = random_gaussians(50, coefficients=4), random_gaussians(60, coefficients=1)
    paths = [tmp_path / "one.ply", tmp_path / "two.ply"]
    for path, gaussians in zip(paths, found):
        gaussians.scales[:] = 0.001 * (1 + gaussians.scales)  # as small as a real prediction's
        write_ply(path, gaussians)
    return paths, found


@pytest.fixture
def served(scenes):
    """Both on any free port, ended afterwards."""
    server, handles = serve(scenes[0], 0)
    yield server, handles, scenes[1]
    server.stop()


def fetch(port: int) -> bytes:
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()


def test_the_page_is_served_to_this_machine_alone(served):
    server, _, _ = served
    assert server.get_host() == "127.0.0.1" and server.get_port() > 0
    assert b"<html" in fetch(server.get_port()).lower()


def test_the_scene_holds_the_files_gaussians(served):
    """viser's buffer, read by hand: centre, a word of its own, six halves of the covariance, colour."""
    _, handles, found = served
    factor = DISTANCE / found[0].means.norm(dim=-1).median().item()
    for handle, gaussians in zip(handles, found):
        words = np.ascontiguousarray(handle.buffer)
        assert words.shape == (len(gaussians), 8)
        np.testing.assert_allclose(words[:, :3].copy().view(np.float32), factor * gaussians.means, rtol=1e-5, atol=1e-6)
        upper = factor**2 * covariances(gaussians.quats, gaussians.scales).flatten(1)[:, [0, 1, 2, 4, 5, 8]].numpy()
        halves = words[:, 4:7].copy().view(np.float16).astype(np.float64)
        assert np.abs(halves - upper).max() <= 2e-3 * np.abs(upper).max()
        diagonal = halves[:, [0, 3, 5]] / upper[:, [0, 3, 5]]
        assert np.abs(diagonal - 1).max() < 0.02  # half precision has not swallowed the small ones
        bytes_of = words[:, 7:].copy().view(np.uint8) / 255
        colours = (0.5 + 0.28209479177387814 * gaussians.sh[:, 0]).clamp(0, 1)
        assert np.abs(bytes_of - torch.cat([colours, gaussians.opacities[:, None]], 1).numpy()).max() <= 1.01 / 255


def test_a_switch_shows_one_of_two_scenes_from_one_camera(served, scenes):
    server, handles, _ = served
    assert [handle.visible for handle in handles] == [True, False]
    (switch,) = server.gui._gui_input_handle_from_uuid.values()
    assert list(switch.options) == [f"1: {scenes[0][0]}", f"2: {scenes[0][1]}"]
    switch.value = switch.options[1]
    assert [handle.visible for handle in handles] == [False, True]


@pytest.mark.parametrize("name", ["scene.splat", "scene.compressed.ply"])
def test_every_format_that_predict_writes_is_shown(tmp_path, scenes, name):
    write_gaussians(tmp_path / name, scenes[1][1])
    server, (handle,) = serve([tmp_path / name], 0)
    try:
        assert len(handle.buffer) > 50  # the compressed form lacks the faintest
    finally:
        server.stop()


def test_gaussians_that_are_not_finite_are_counted_and_left_out(scenes, capsys):
    (path, _), (gaussians, _) = scenes
    gaussians.means[3, 1], gaussians.scales[4, 0], gaussians.quats[5] = float("nan"), float("inf"), 0
    write_ply(path, gaussians)
    server, (handle,) = serve([path], 0)
    server.stop()
    assert len(handle.buffer) == 47
    assert f"{path}: 3 of 50 Gaussians hold numbers that are not finite, or no rotation" in capsys.readouterr().out
    gaussians.sh[:] = float("nan")
    write_ply(path, gaussians)
    with pytest.raises(ValueError, match="50 of 50 Gaussians .* nothing to show"):
        serve([path], 0)


def test_missing_and_foreign_files_are_refused_in_a_sentence(tmp_path, scenes):
    paths, _ = scenes
    (tmp_path / "foreign.ply").write_text("ply\nformat ascii 1.0\nend_header\n")
    for words, said in (
        ([tmp_path / "none.ply"], "There is no file"),
        ([paths[0], tmp_path / "foreign.ply"], "foreign.ply"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        assert str(stop.value).startswith("error: ") and said in str(stop.value)
    with pytest.raises(SystemExit) as stop:
        main([str(paths[0])] * 3)
    assert stop.value.code == 2


def test_an_installation_without_the_viewer_says_what_brings_it(scenes, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(SystemExit, match="error: viser is not installed; .* -r requirements-viewer.txt"):
        main([str(scenes[0][0])])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_interrupted(scenes, number):
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "src.view", str(scenes[0][0]), "--port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = iter(process.stdout.readline, "")
        port = next(int(found[1]) for line in lines if (found := re.search(r"^http://127.0.0.1:(\d+) shows", line)))
        assert b"<html" in fetch(port).lower()
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in process.stdout.read()
        with pytest.raises(OSError):
            fetch(port)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_before_it_waits_ends_it_in_good_order(handlers, scenes, number, monkeypatch):
    said = []

    def interrupted(text: str, **_: object) -> None:
        said.append(text)
        signal.raise_signal(number)

    monkeypatch.setattr("builtins.print", interrupted)
    try:
        main([str(scenes[0][0]), "--port", "0"])
    except KeyboardInterrupt:
        pytest.fail("the interruption went through")
    (line,) = said
    with pytest.raises(OSError):
        fetch(int(re.match(r"http://127.0.0.1:(\d+) shows", line)[1]))
