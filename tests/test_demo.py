import base64
import dataclasses
import io
import json
import sys

import numpy as np
import pytest
import torch
import viser
from PIL import Image

from src import demo
from src.inference.offers import offered_models
from src.inference.trained_model import trained_model
from src.renders.ply import read_ply
from src.scenes.scene import Scene
from tests.helpers import browser
from tests.helpers.repository import ROOT
from tests.helpers.trained import SIZE, inside, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained folder, its configuration, its model in memory, and the two images of its pair as PNG bytes."""
    folder = tmp_path_factory.mktemp("trained")
    config = train(folder)
    scene = Scene.open(folder / "data/scenes/scenes/pair.safetensors")
    files = []
    for name in scene.names:
        buffer = io.BytesIO()
        Image.fromarray(scene.frame(name).image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    with inside(folder):
        models = demo.Turns(*offered_models(config))
    return folder, config, models, files


@pytest.fixture
def desk(trained):
    """What a visitor sees, on a server in place of a browser's client."""
    server = viser.ViserServer("127.0.0.1", 0, verbose=False)
    yield demo.Desk(server, trained[2])
    server.stop()


class Sent:
    """A client that keeps what it is sent."""

    def send_file_download(self, filename: str, content: bytes, save_immediately: bool) -> None:
        self.filename, self.content = filename, content


def upload(desk: demo.Desk, number: int, name: str, content: bytes) -> None:
    """As the browser does: the button's value changes, and what was attached to it is called."""
    button = desk.uploads[number]
    button._impl.value = viser.UploadedFile(name, content)
    for callback in button._impl.update_cb:
        callback(viser.GuiEvent(None, None, button))


def test_two_uploads_give_predict_s_gaussians_and_its_file(trained, desk, tmp_path):
    folder, config, model, files = trained
    assert desk.start.disabled and all(button.disabled for button in desk.downloads.values())
    for number, content in enumerate(files):
        upload(desk, number, f"{number}.png", content)
    assert not desk.start.disabled
    np.testing.assert_array_equal(desk.shown[1].image, np.asarray(Image.open(io.BytesIO(files[1]))))
    with inside(folder):
        desk.explained(desk.predict)
    assert f"{2 * SIZE[0] * SIZE[1]:,} Gaussians" in desk.said.content
    with inside(folder):
        wanted = trained_model(config).predict(torch.stack(desk.images))[0].gaussians[0]
    assert torch.equal(desk.gaussians.means, wanted.means) and torch.equal(desk.gaussians.sh, wanted.sh)
    sent = Sent()
    desk.download(sent, ".ply")
    (tmp_path / sent.filename).write_bytes(sent.content)
    torch.testing.assert_close(read_ply(tmp_path / "scene.ply").means, wanted.means)
    desk.download(sent, ".splat")
    assert sent.filename == "scene.splat" and len(sent.content) == 32 * len(wanted)


def test_another_model_is_told_of_cuts_the_images_anew_and_predicts_at_once(trained, tmp_path):
    folder, _, models, files = trained
    (first,) = models.offers.values()
    taller = dataclasses.replace(first, name="taller", words="of taller images", resolution=(64, 64))
    server = viser.ViserServer("127.0.0.1", 0, verbose=False)
    desk = demo.Desk(server, demo.Turns([first, taller], ["broken: It lacks a file."]))

    def choose(name: str) -> None:
        desk.choice._impl.value = name
        desk.explained(desk.choose)

    try:
        assert first.words in desk.told.content and "untrained" in desk.told.content
        for number, content in enumerate(files):
            upload(desk, number, f"{number}.png", content)
        choose("taller")
        assert desk.told.content == "of taller images" and desk.images[1].shape == (3, 64, 64) and not desk.gaussians
        with inside(folder):
            desk.explained(desk.predict)
            assert len(desk.gaussians) == 2 * 64 * 64
            choose("work tree")
        assert len(desk.gaussians) == 2 * SIZE[0] * SIZE[1] and "by work tree" in desk.said.content
    finally:
        server.stop()


def test_a_visitor_s_mistakes_are_said_and_lose_nothing(trained, desk):
    files = trained[3]
    desk.explained(desk.predict)
    assert demo.START in desk.said.content
    upload(desk, 0, "a.png", files[0])
    upload(desk, 1, "../notes.txt", b"no picture")
    assert "notes.txt" in desk.said.content and "tmp" not in desk.said.content and desk.start.disabled
    assert desk.images[0] is not None and desk.images[1] is None
    upload(desk, 1, "again.png", files[0])
    desk.explained(desk.predict)
    assert "same picture" in desk.said.content and desk.gaussians is None


def test_every_visitor_gets_a_desk_of_their_own(trained, monkeypatch):
    seated = []
    monkeypatch.setattr(demo, "Desk", lambda client, model: seated.append((client, model)))
    server = demo.serve_demo(trained[2], "127.0.0.1", 0)
    try:
        assert server.get_host() == "127.0.0.1"
        for number in (1, 2):
            for connected in server._client_connect_cb:
                connected(f"client {number}")
        assert seated == [("client 1", trained[2]), ("client 2", trained[2])]
    finally:
        server.stop()


TOOLS = """
  const until = async (found) => { while (!found()) await new Promise((go) => setTimeout(go, 50)); };
  const button = (name) => [...document.querySelectorAll("button")].find((each) => each.innerText.trim() == name);
"""
UPLOAD = """
(async () => { TOOLS
  window.start = performance.now();
  const inputs = [...document.querySelectorAll("input[type=file]")].slice(0, 2);
  const bytes = (data) => Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const files = FILES.map((data, number) => new File([bytes(data)], `${number}.png`));
  for (const [number, input] of inputs.entries()) {
    const chosen = new DataTransfer();
    chosen.items.add(files[number]);
    input.files = chosen.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    await until(() => document.body.innerText.includes(`${number}.png: `));
  }
  await until(() => !button("Predict").disabled);
  button("Example: rooms").focus();
})()
"""
SPLATS = """
(async () => { TOOLS
  await until(() => document.body.innerText.includes(" Gaussians by"));
  const seconds = (performance.now() - window.start) / 1000;
  return [document.body.innerText, seconds];
})()
"""
CHOICE = "[...document.querySelectorAll('input')].find((each) => each.value == 'work tree').focus()"
SETTLE = "new Promise((go) => setTimeout(go, 3000))"  # sorting and drawing come to rest
PAUSE = "new Promise((go) => setTimeout(go, 600))"  # a list opens
DOWNLOAD = """
(async () => { TOOLS
  document.querySelector("canvas").parentElement.focus();
  await until(() => !button("Download scene.ply").disabled);
  button("Download scene.ply").click();
})()
"""


def drawn_colours(picture: bytes) -> tuple[int, np.ndarray]:
    """How many colours a window shows where no panel, notice or axes are, and that part of it."""
    part = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))[320:820, :840]
    return len(np.unique(part.reshape(-1, 3), axis=0)), part


def drawn(picture: bytes) -> bool:
    return drawn_colours(picture)[0] > 2000


class Turned:
    """Whether a window shows something else than before, by more than one pixel in a hundred."""

    before: np.ndarray | None = None

    def __call__(self, picture: bytes) -> bool:
        view = drawn_colours(picture)[1]
        if self.before is None:
            self.before = view
            return drawn(picture)
        return bool((view != self.before).any(-1).mean() > 0.01)


@browser.needed
def test_a_browser_uploads_two_images_and_is_shown_the_splats_to_turn_and_to_download(trained, tmp_path):
    folder, _, models, files = trained
    first = models.offers["work tree"]
    second = dataclasses.replace(first, name="second", words="the second model")
    server = demo.serve_demo(demo.Turns([first, second], []), "127.0.0.1", 0)
    encoded = json.dumps([base64.b64encode(file).decode() for file in files])
    upload_files, splats, download = (work.replace("TOOLS", TOOLS) for work in (UPLOAD, SPLATS, DOWNLOAD))
    steps = (
        CHOICE,
        *(step for key in ("ArrowDown", "ArrowDown", "Enter") for step in (PAUSE, browser.Press(key))),
        PAUSE,
        "document.body.innerText",
        upload_files.replace("FILES", encoded),
        browser.Picture(),
        *map(browser.Press, ("Tab", "Enter")),  # from the button before to Predict, and down
        splats,
        browser.Picture(drawn),
        SETTLE,
        browser.Picture(turned := Turned()),
        "document.activeElement.blur()",
        browser.Press("d", held=1.0),  # moves the camera
        browser.Picture(turned),
        download,
        browser.Arrival("scene.ply"),
    )
    try:
        with inside(folder):
            address = f"http://127.0.0.1:{server.get_port()}/"
            ready = 'document.body.innerText.includes("Predict")'
            seen = browser.visit(address, tmp_path, 1200, ready, *steps)
    finally:
        server.stop()
    pictures = [answer for answer in seen.answers if isinstance(answer, bytes)]
    chosen, (words, seconds) = (answer for answer in seen.answers if isinstance(answer, str | list))
    assert "the second model" in chosen and first.words not in chosen
    assert f"{2 * SIZE[0] * SIZE[1]:,} Gaussians by second" in words
    print(f"{seconds:.1f} s from the uploads to the splats")
    assert drawn_colours(pictures[0])[0] < 100  # the others waited until splats were there, and had moved
    assert len(read_ply(tmp_path / browser.DOWNLOADS / "scene.ply")) == 2 * SIZE[0] * SIZE[1]
    assert all(request.startswith((address, "data:", "blob:", "ws")) for request in seen.requests)


def test_without_a_trained_model_or_viser_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: There is no trained model here, .* run dvc repro train"):
        demo.main([])
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(SystemExit, match="error: viser is not installed; .* -r requirements-viewer.txt"):
        demo.main([])
