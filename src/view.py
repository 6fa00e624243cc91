"""Look at Gaussians in a browser.

    python -m src.view scene.ply [other.splat] [--port NUMBER]   port 8080, or the next free one; 0 = any

One or two files of Gaussians: .ply, .compressed.ply or .splat.

Served to this machine alone. Two files share one camera: a switch shows the one or the other from the same place.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from src.geometry.cameras import covariances
from src.renders.gaussian_file import read_gaussians
from src.run import Words, mistakes_explained
from src.splatting.gaussians import Gaussians
from src.splatting.sh import dc_to_rgb

if TYPE_CHECKING:
    import viser

HOST, PORT = "127.0.0.1", 8080
DISTANCE = 10.0  # viewer units from the camera to the middle of the scene: covariances travel in half precision


def arguments(words: list[str]) -> argparse.Namespace:
    parser = Words("view")
    parser.add_argument("scenes", nargs="+", type=Path, metavar="scene.ply")
    parser.add_argument("--port", type=int, default=PORT, metavar="NUMBER")
    asked = parser.parse_args(words)
    if len(asked.scenes) > 2:
        parser.error("name one file, or two to compare")
    return asked


def opened_splats(path: Path) -> Gaussians:
    """Gaussians of a file; those that cannot be drawn are left out, and their number is printed.

    raises    FileNotFoundError, ValueError  when there is no such file, or no Gaussian in it can be drawn
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}; python -m src.predict writes one, and so does the stage render."
        )
    found = read_gaussians(path)
    sound = found.finite
    if lost := int((~sound).sum()):
        words = f"{lost} of {len(found)} Gaussians hold numbers that are not finite, or no rotation"
        if lost == len(found):
            raise ValueError(f"{path}: {words}, so there is nothing to show; export it again.")
        print(f"{path}: {words}; they are left out", flush=True)
    return found.chosen(sound)


def viser_library() -> ModuleType:
    """raises FileNotFoundError where viser is not installed: the viewer alone needs it"""
    try:
        import viser
    except ModuleNotFoundError:
        words = "viser is not installed; python -m pip install -r requirements-viewer.txt brings it."
        raise FileNotFoundError(words) from None
    return viser


def enlargement(scenes: list[Gaussians]) -> float:
    """Factor that puts the median Gaussian of the first scene at DISTANCE from the first image's camera."""
    median = scenes[0].means.norm(dim=-1).median().item() if len(scenes[0]) else 0
    return DISTANCE / median if median > 0 else 1.0


def add_splats(server: viser.ViserServer, name: str, gaussians: Gaussians, factor: float) -> viser.GaussianSplatHandle:
    """Gaussians enlarged by `factor`, with their colour seen from everywhere, as a node of the scene."""
    g = gaussians.scaled(factor)
    return server.scene.add_gaussian_splats(
        name,
        centers=g.means.numpy(),
        covariances=covariances(g.quats, g.scales).numpy(),
        rgbs=dc_to_rgb(g.sh[:, 0]).clamp(0, 1).numpy(),
        opacities=g.opacities[:, None].numpy(),
    )


def serve(paths: list[Path], port: int) -> tuple[viser.ViserServer, list[viser.GaussianSplatHandle]]:
    """A running server that shows the first file, and a switch where there is a second; the handles in that order.

    raises    FileNotFoundError, ValueError  when viser or a file is missing, or one holds no Gaussians; no server then runs
    """
    viser = viser_library()
    scenes = [opened_splats(path) for path in paths]
    factor = enlargement(scenes)
    server = viser.ViserServer(HOST, port, label="Backsplat", verbose=False)
    server.scene.set_up_direction("-y")
    server.initial_camera.position = np.zeros(3)
    server.initial_camera.look_at = np.array([0, 0, DISTANCE])
    labels = [f"{number}: {path}" for number, path in enumerate(paths, 1)]
    handles = [add_splats(server, f"/{number}", scene, factor) for number, scene in enumerate(scenes, 1)]
    if len(handles) > 1:
        switch = server.gui.add_dropdown("Scene", labels)

        def show(_: object = None) -> None:
            for label, handle in zip(labels, handles):
                handle.visible = label == switch.value

        switch.on_update(show)
        show()
    return server, handles


def main(words: list[str]) -> None:
    asked = arguments(words)
    with mistakes_explained():
        server, handles = serve(asked.scenes, asked.port)
    try:  # from here on: who reads the address may end this before it waits
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs deaf to the first
            signal.signal(number, signal.default_int_handler)
        print(
            f"http://{HOST}:{server.get_port()} shows {', '.join(map(str, asked.scenes))}; Ctrl-C ends it", flush=True
        )
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
