"""A demonstration in the browser: two images in, 3D Gaussians out, by one of the trained models that are here.

    python -m src.demo [--port NUMBER] [--host ADDRESS] [--shipped]   port 8080, or the next free one; 0 = any

    --host ADDRESS   127.0.0.1, which serves this machine alone; 0.0.0.0 serves every network it is in
    --shipped        the model in data/bundled/splatt3r alone

A choice offers the model of the work tree, the one in data/bundled/splatt3r, and those of `dvc exp` experiments whose files
the DVC cache has.

reads data/model and data/weights, data/bundled, params.yaml, the DVC cache; needs no network, and writes no file
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from src.config import load_config
from src.inference.examples import EXAMPLE_FAMILIES, example_pair
from src.inference.offers import Offer, offered_models
from src.inference.photographs import Snapshot, read_snapshot
from src.renders.gaussian_file import WRITERS, write_gaussians
from src.reproducible.seeds import fix_computation
from src.run import Words, mistakes_explained
from src.splatting.gaussians import Gaussians
from src.view import DISTANCE, HOST, PORT, add_splats, enlargement, viser_library

if TYPE_CHECKING:
    import viser

ImageAt = Callable[[tuple[int, int]], tuple[Tensor, str]]  # (W, H) pixels -> image (3, H, W), and words on it
START = "Give two images of one place, taken a step apart, or take an example."


class Turns:
    """The models that can be chosen, one prediction at a time. Each reads the weights anew, as `predict` does, so a new
    training is shown from the next prediction on."""

    def __init__(self, offers: list[Offer], refusals: list[str]):
        """offers: the one to begin with first; refusals: a sentence on each model that cannot be loaded"""
        self.offers, self.refusals, self.lock = {offer.name: offer for offer in offers}, refusals, threading.Lock()

    def gaussians(self, name: str, images: Tensor) -> Gaussians:
        """By the model of a name, of two images (2, 3, H, W) in [0, 1], in the first one's camera frame, on the CPU.

        raises FileNotFoundError, ValueError when the model is gone since, or asks for cameras and cannot estimate them
        """
        with self.lock:
            model = self.offers[name].load()
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
    """What one visitor sees and does: a choice of models, two images, a button, the Gaussians, downloads.

    surface   viser's client of this visitor
    """

    def __init__(self, surface: viser.ClientHandle, models: Turns):
        self.surface, self.models = surface, models
        self.sources: list[ImageAt | None] = [None, None]  # of both images, read again where another size is asked for
        self.images: list[Tensor | None] = [None, None]
        self.gaussians: Gaussians | None = None
        gui, names = surface.gui, list(models.offers)
        gui.add_markdown("**Two images to 3D Gaussians**")
        self.choice = gui.add_dropdown("Model", names, initial_value=names[0])
        self.told = gui.add_markdown("")
        blank = np.full((*self.offer.resolution[::-1], 3), 200, np.uint8)
        self.uploads = [gui.add_upload_button(f"{place} image", mime_type="image/*") for place in ("First", "Second")]
        self.shown = [gui.add_image(blank, label=f"{number}") for number in (1, 2)]
        self.examples = {family: gui.add_button(f"Example: {family}") for family in EXAMPLE_FAMILIES}
        self.start = gui.add_button("Predict", disabled=True)
        self.downloads = {ending: gui.add_button(f"Download scene{ending}", disabled=True) for ending in WRITERS}
        self.said = gui.add_markdown(START)
        if models.refusals:
            gui.add_markdown("\n\n".join(["Not offered:", *models.refusals]))
        self.tell()
        self.choice.on_update(lambda _: self.explained(self.choose))
        for number, upload in enumerate(self.uploads):
            upload.on_upload(
                lambda event, number=number: self.explained(lambda: self.take_upload(number, event.target))
            )
        for family, button in self.examples.items():
            button.on_click(lambda _, family=family: self.explained(lambda: self.take_example(family)))
        self.start.on_click(lambda _: self.explained(self.predict))
        for ending, button in self.downloads.items():
            button.on_click(lambda event, ending=ending: self.explained(lambda: self.download(event.client, ending)))

    @property
    def offer(self) -> Offer:
        """The chosen model."""
        return self.models.offers[self.choice.value]

    def tell(self) -> None:
        """Say what the chosen model is made of."""
        self.told.content = "\n\n".join(filter(None, (self.offer.words, self.offer.notice)))

    def explained(self, work: Callable[[], None]) -> None:
        """Do it, and say a visitor's mistake in place of the last words."""
        try:
            work()
        except (ValueError, FileNotFoundError) as error:
            self.said.content = f"**{error}**"

    def choose(self) -> None:
        """Another model: the images are cut to its size, and where Gaussians are shown, its own take their place."""
        self.tell()
        for number, source in enumerate(self.sources):
            if source is not None:
                self.take(number, source)
        if self.gaussians is not None:
            self.predict()

    def take(self, number: int, source: ImageAt) -> None:
        """One image of the pair.

        raises ValueError when it is no picture; the image that was there stays
        """
        image, words = source(self.offer.resolution)
        self.sources[number], self.images[number] = source, image
        self.shown[number].image = (255 * image).round().to(torch.uint8).permute(1, 2, 0).numpy()
        self.start.disabled = any(each is None for each in self.images)
        self.said.content = words

    def take_upload(self, number: int, upload: viser.GuiUploadButtonHandle) -> None:
        """raises ValueError when it is no picture"""
        name, content = upload.value.name, upload.value.content

        def source(resolution: tuple[int, int]) -> tuple[Tensor, str]:
            found = uploaded_image(name, content, resolution)
            return found.image, f"{name}: {'; '.join(found.notes)}."

        self.take(number, source)

    def take_example(self, family: str) -> None:
        """Two images of a procedural scene, and what the model makes of them."""
        pairs = cache(lambda resolution: example_pair(family, resolution)[0])
        for number in (0, 1):
            self.take(number, lambda resolution, number=number: (pairs(resolution)[number], f"Family {family}."))
        self.predict()

    def predict(self) -> None:
        """raises ValueError for the same picture twice"""
        first, second = self.images
        if first is None or second is None:
            raise ValueError(START)
        if torch.equal(first, second):
            raise ValueError("Both images are the same picture, which shows no depth; give two of one place.")
        self.said.content = "Predicting …"
        name, start = self.offer.name, time.monotonic()
        found = self.models.gaussians(name, torch.stack([first, second]))
        sound = found.chosen(found.finite)
        if not len(sound):
            raise ValueError("The model's Gaussians are not finite, so there is nothing to show; train it again.")
        self.gaussians = found
        add_splats(self.surface, "/scene", sound, enlargement([sound]))
        for button in self.downloads.values():
            button.disabled = False
        self.said.content = (
            f"{len(sound):,} Gaussians by {name} in {time.monotonic() - start:.1f} s. Drag to turn, right drag to move, "
            "scroll to come nearer; or the keys W A S D, Q E and the arrows."
        )

    def download(self, client: viser.ClientHandle, ending: str) -> None:
        if self.gaussians is None:
            raise ValueError(START)
        client.send_file_download(f"scene{ending}", as_bytes(self.gaussians, ending), save_immediately=True)


def serve_demo(models: Turns, host: str, port: int) -> viser.ViserServer:
    """A running server with a desk for every visitor."""
    server = viser_library().ViserServer(host, port, label="Backsplat", verbose=False)
    server.gui.configure_theme(show_logo=False, show_share_button=False)  # sharing goes through a stranger's server
    server.scene.set_up_direction("-y")
    server.initial_camera.position = np.zeros(3)
    server.initial_camera.look_at = np.array([0, 0, DISTANCE])

    @server.on_client_connect
    def _(client: viser.ClientHandle) -> None:
        Desk(client, models)

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
        models = Turns(*offered_models(config, asked.shipped))
        for sentence in filter(None, (*models.refusals, next(iter(models.offers.values())).notice)):
            print(sentence)
        server = serve_demo(models, asked.host, asked.port)
    try:  # from here on: who reads the address may end this before it waits
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs deaf to the first
            signal.signal(number, signal.default_int_handler)
        print(f"http://{asked.host}:{server.get_port()} shows the demonstration; Ctrl-C ends it", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
