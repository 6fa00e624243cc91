"""A demonstration in the browser: two images in, 3D Gaussians out, by a trained model.

    python -m src.demo [--port NUMBER] [--host ADDRESS] [--shipped]   port 8080, or the next free one; 0 = any

    --host ADDRESS   127.0.0.1, which serves this machine alone; 0.0.0.0 serves every network it is in
    --shipped        by the model in data/bundled/splatt3r, which is taken too where there is no data/model

reads data/model and data/weights, or data/bundled; params.yaml; needs no network, and writes no file
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from src.config import Config, load_config
from src.inference.examples import EXAMPLE_FAMILIES, example_pair
from src.inference.photographs import Snapshot, read_snapshot
from src.inference.trained_model import trained_model
from src.renders.gaussian_file import WRITERS, write_gaussians
from src.reproducible.seeds import fix_computation
from src.run import Words, mistakes_explained
from src.splatting.gaussians import Gaussians
from src.view import DISTANCE, HOST, PORT, add_splats, enlargement, viser_library

if TYPE_CHECKING:
    import viser

START = "Give two images of one place, taken a step apart, or take an example."


class Turns:
    """The trained model, one prediction at a time. Each reads the weights anew, as `predict` does, so a new training is
    shown from the next prediction on."""

    def __init__(self, config: Config, shipped: bool = False):
        """raises FileNotFoundError, ValueError where there is no trained model, or another than params.yaml says"""
        found = trained_model(config, shipped)
        self.config, self.shipped, self.lock = config, bool(found.notice), threading.Lock()
        self.words, self.notice, self.resolution = found.words, found.notice, found.resolution

    def gaussians(self, images: Tensor) -> Gaussians:
        """Of two images (2, 3, H, W) in [0, 1], in the first one's camera frame, on the CPU.

        raises ValueError when a model that asks for cameras cannot estimate them
        """
        with self.lock:
            model = trained_model(self.config, self.shipped)
            return model.predict(images.to(model.device))[0].gaussians[0].to("cpu")


def uploaded_image(name: str, content: bytes, resolution: tuple[int, int]) -> Snapshot:
    """raises ValueError when the file is no picture that `read_snapshot` takes"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (Path(name).name or "image")
        path.write_bytes(content)
        try:
            return read_snapshot(path, resolution)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder}/", "")) from None  # a visitor knows the name alone


def as_bytes(gaussians: Gaussians, ending: str) -> bytes:
    """The file that `predict -o scene<ending>` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scene{ending}"
        write_gaussians(path, gaussians)
        return path.read_bytes()


class Desk:
    """What one visitor sees and does: two images, a button, the Gaussians, downloads.

    surface   viser's client of this visitor
    """

    def __init__(self, surface: viser.ClientHandle, model: Turns):
        self.surface, self.model = surface, model
        self.images: list[Tensor | None] = [None, None]
        self.gaussians: Gaussians | None = None
        gui, blank = surface.gui, np.full((*model.resolution[::-1], 3), 200, np.uint8)
        gui.add_markdown(f"**Two images to 3D Gaussians**\n\n{model.words}\n\n{model.notice}")
        self.uploads = [gui.add_upload_button(f"{place} image", mime_type="image/*") for place in ("First", "Second")]
        self.shown = [gui.add_image(blank, label=f"{number}") for number in (1, 2)]
        self.examples = {family: gui.add_button(f"Example: {family}") for family in EXAMPLE_FAMILIES}
        self.start = gui.add_button("Predict", disabled=True)
        self.downloads = {ending: gui.add_button(f"Download scene{ending}", disabled=True) for ending in WRITERS}
        self.said = gui.add_markdown(START)
        for number, upload in enumerate(self.uploads):
            upload.on_upload(
                lambda event, number=number: self.explained(lambda: self.take_upload(number, event.target))
            )
        for family, button in self.examples.items():
            button.on_click(lambda _, family=family: self.explained(lambda: self.take_example(family)))
        self.start.on_click(lambda _: self.explained(self.predict))
        for ending, button in self.downloads.items():
            button.on_click(lambda event, ending=ending: self.explained(lambda: self.download(event.client, ending)))

    def explained(self, work: Callable[[], None]) -> None:
        """Do it, and say a visitor's mistake in place of the last words."""
        try:
            work()
        except ValueError as error:
            self.said.content = f"**{error}**"

    def take(self, number: int, image: Tensor, words: str) -> None:
        """One image (3, H, W) of the pair."""
        self.images[number] = image
        self.shown[number].image = (255 * image).round().to(torch.uint8).permute(1, 2, 0).numpy()
        self.start.disabled = any(each is None for each in self.images)
        self.said.content = words

    def take_upload(self, number: int, upload: viser.GuiUploadButtonHandle) -> None:
        """raises ValueError when it is no picture; the image that was there stays"""
        found = uploaded_image(upload.value.name, upload.value.content, self.model.resolution)
        self.take(number, found.image, f"{upload.value.name}: {'; '.join(found.notes)}.")

    def take_example(self, family: str) -> None:
        """Two images of a procedural scene, and what the model makes of them."""
        for number, image in enumerate(example_pair(family, self.model.resolution)[0]):
            self.take(number, image, f"A scene of the family {family}.")
        self.predict()

    def predict(self) -> None:
        """raises ValueError for the same picture twice"""
        first, second = self.images
        if first is None or second is None:
            raise ValueError(START)
        if torch.equal(first, second):
            raise ValueError("Both images are the same picture, which shows no depth; give two of one place.")
        self.said.content = "Predicting …"
        found = self.model.gaussians(torch.stack([first, second]))
        sound = found.chosen(found.finite)
        if not len(sound):
            raise ValueError("The model's Gaussians are not finite, so there is nothing to show; train it again.")
        self.gaussians = found
        add_splats(self.surface, "/scene", sound, enlargement([sound]))
        for button in self.downloads.values():
            button.disabled = False
        self.said.content = f"{len(sound):,} Gaussians. Drag to turn, right drag to move, scroll to come nearer."

    def download(self, client: viser.ClientHandle, ending: str) -> None:
        if self.gaussians is None:
            raise ValueError(START)
        client.send_file_download(f"scene{ending}", as_bytes(self.gaussians, ending))


def serve_demo(model: Turns, host: str, port: int) -> viser.ViserServer:
    """A running server with a desk for every visitor."""
    server = viser_library().ViserServer(host, port, label="Backsplat", verbose=False)
    server.scene.set_up_direction("-y")
    server.initial_camera.position = np.zeros(3)
    server.initial_camera.look_at = np.array([0, 0, DISTANCE])

    @server.on_client_connect
    def _(client: viser.ClientHandle) -> None:
        Desk(client, model)

    return server


def arguments(words: list[str]) -> argparse.Namespace:
    parser = Words("demo")
    parser.add_argument("--port", type=int, default=PORT, metavar="NUMBER")
    parser.add_argument("--host", default=HOST, metavar="ADDRESS")
    parser.add_argument("--shipped", action="store_true")
    return parser.parse_args(words)


def main(words: list[str]) -> None:
    asked = arguments(words)
    with mistakes_explained():
        viser_library()
        config = load_config()
        fix_computation(config.threads)
        model = Turns(config, asked.shipped)
        if model.notice:
            print(model.notice)
        server = serve_demo(model, asked.host, asked.port)
    try:  # from here on: who reads the address may end this before it waits
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs deaf to the first
            signal.signal(number, signal.default_int_handler)
        print(f"http://{asked.host}:{server.get_port()} shows the demonstration; Ctrl-C ends it", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
