import base64
import io
import json
import sys

import numpy as np
import pytest
import torch
import viser
from PIL import Image

from src import demo
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
        model = demo.Turns(config)
    return folder, config, model, files


@pytest.fixture
def desk(trained):
    """What a visitor sees, on a server in place of a browser's client."""
    server = viser.ViserServer("127.0.0.1", 0, verbose=False)
    yield demo.Desk(server, trained[2])
    server.stop()


class Sent:
    """A client that keeps what it is sent."""

    def send_file_download(self, filename: str, content: bytes) -> None:
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


UPLOAD_AND_PREDICT = """
(async () => {
  const until = async (found) => { while (!found()) await new Promise((go) => setTimeout(go, 50)); };
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
  const button = (name) => [...document.querySelectorAll("button")].find((each) => each.innerText.trim() == name);
  await until(() => !button("Predict").disabled);
  button("Predict").click();
  const start = performance.now();
  await until(() => document.body.innerText.includes(" Gaussians."));
  await until(() => !button("Download scene.ply").disabled);
  return [document.body.innerText, (performance.now() - start) / 1000, document.querySelectorAll("canvas").length];
})()
"""


@browser.needed
def test_a_browser_uploads_two_images_and_is_shown_the_splats(trained, tmp_path):
    folder, _, model, files = trained
    server = demo.serve_demo(model, "127.0.0.1", 0)
    try:
        with inside(folder):
            work = UPLOAD_AND_PREDICT.replace("FILES", json.dumps([base64.b64encode(file).decode() for file in files]))
            address = f"http://127.0.0.1:{server.get_port()}/"
            ready = 'document.body.innerText.includes("Predict")'
            seen = browser.visit(address, tmp_path, 1200, ready, work)
    finally:
        server.stop()
    words, seconds, canvases = seen.answers[0]
    assert f"{2 * SIZE[0] * SIZE[1]:,} Gaussians." in words and canvases >= 1
    print(f"{seconds:.1f} s from the click to the splats")
    assert all(request.startswith((address, "data:", "blob:", "ws")) for request in seen.requests)


def test_without_a_trained_model_or_viser_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: There is no trained model here, .* run dvc repro train"):
        demo.main([])
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(SystemExit, match="error: viser is not installed; .* -r requirements-viewer.txt"):
        demo.main([])
