"""Layout 1 of what goes out to a method that this project does not run, and of the renders that come back.

Out goes a folder with protocol.json (what is wanted, and all cameras) and the contexts: images as PNG, depths as .npy
where a scene has any. Back comes a folder with method.json and a picture of every target, `aligned/` and perhaps
`raw/`: <episode>/<target>.png, or <episode>.safetensors with a tensor per target. Both are written and read here;
docs/score.md describes them.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from src.geometry.alignment import camera_in_prediction
from src.reproducible.files import fresh_folder, write_json
from src.reproducible.hashes import params_hash
from src.results.tables import ALIGNMENTS
from src.scenes.scene import View

LAYOUT_VERSION = 1
PROTOCOL_FILE, METHOD_FILE, CONTEXTS = "protocol.json", "method.json", "contexts"
REQUIRED, OPTIONAL = "aligned", "raw"  # the alignments; comparisons are made with the first
DECLARED = ("method", "licence", "hardware")  # by the method's authors, in words
BRIGHTEST = 16.0  # no render in [0, 1] is; one in [0, 255] is
NAMED = 3  # files of one fault that a sentence names


@dataclass(frozen=True)
class Protocol:
    """What is scored.

    episodes    as data/renders describes them: episode, scene, category, bin, contexts, targets (names of views)
    resolution  (W, H) in pixels
    scenes      SHA-256 of data/scenes/index.jsonl, which holds those of the scenes
    """

    episodes: list[dict]
    resolution: tuple[int, int]
    scenes: str

    @property
    def name(self) -> str:
        """16 hex digits that name scenes, episodes, resolution and layout."""
        return params_hash(LAYOUT_VERSION, self.episodes, list(self.resolution), self.scenes)


@dataclass(frozen=True)
class Method:
    """What the authors of a submission declare; nothing of it can be checked here."""

    method: str
    licence: str
    hardware: str


def file_name(view: str) -> str:
    """Of a view's picture: whatever is no letter, digit or one of `_.-~` is written as %XX."""
    return f"{quote(view, safe='')}.png"


def write_png(path: Path, image: Tensor) -> None:
    """image (3, H, W) in [0, 1], rounded to 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (255 * image.float().clamp(0, 1)).round().to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path, optimize=True)


def told_camera(view: View, first: View) -> dict:
    """K, pixels, first pixel centre at 0.5; c2w, OpenCV axes, in the frame of the first context, scene units."""
    return {"K": view.K.tolist(), "c2w": camera_in_prediction(first.c2w, view.c2w[None])[0].tolist()}


def write_protocol(folder: Path, protocol: Protocol, view_of: Callable[[str, str], View]) -> None:
    """Write what a method is told. view_of: (scene, name) to the view at the protocol's resolution.

    raises ValueError when something stands where the folder is to be
    """
    if folder.exists():
        raise ValueError(f"{folder} is there already; name a folder that is not, or move it away.")
    with fresh_folder(folder) as fresh:
        told = []
        for about in protocol.episodes:
            contexts, targets = (
                [view_of(about["scene"], name) for name in about[key]] for key in ("contexts", "targets")
            )
            stems = [f"{CONTEXTS}/{quote(about['scene'], safe='')}/{quote(view.name, safe='')}" for view in contexts]
            for view, stem in zip(contexts, stems):
                if (fresh / f"{stem}.png").exists():
                    continue
                write_png(fresh / f"{stem}.png", view.image)
                if (view.depth > 0).any():
                    np.save(fresh / f"{stem}.npy", view.depth.numpy())
            shown = [
                told_camera(view, contexts[0])
                | {"name": view.name, "image": f"{stem}.png"}
                | ({"depth": f"{stem}.npy"} if (fresh / f"{stem}.npy").exists() else {})
                for view, stem in zip(contexts, stems)
            ]
            wanted = [
                told_camera(view, contexts[0])
                | {"name": view.name, "picture": f"{about['episode']}/{file_name(view.name)}"}
                for view in targets
            ]
            told.append(about | {"contexts": shown, "targets": wanted})
        head = {"layout": LAYOUT_VERSION, "protocol": protocol.name}
        write_json(
            fresh / PROTOCOL_FILE,
            head | {"scenes": protocol.scenes, "resolution": list(protocol.resolution), "episodes": told},
        )
        write_json(fresh / METHOD_FILE, head | dict.fromkeys(DECLARED, ""))


def write_submission(
    folder: Path, protocol: Protocol, method: Method, pictures: Iterable[tuple[str, str, dict[str, Tensor]]]
) -> None:
    """Write renders as a method's authors would, without loss. pictures: (alignment, episode, target -> (3, H, W)).

    raises ValueError when something stands where the folder is to be
    """
    if folder.exists():
        raise ValueError(f"{folder} is there already; name a folder that is not, or move it away.")
    with fresh_folder(folder) as fresh:
        for alignment, episode, tensors in pictures:
            (fresh / alignment).mkdir(exist_ok=True)
            save_file(
                {name: each.contiguous() for name, each in tensors.items()},
                fresh / alignment / f"{episode}.safetensors",
            )
        write_json(fresh / METHOD_FILE, {"layout": LAYOUT_VERSION, "protocol": protocol.name} | vars(method))


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more


def read_method(folder: Path, protocol: Protocol) -> Method:
    """raises FileNotFoundError, ValueError"""
    path = folder / METHOD_FILE
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; name the one that holds the renders.")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; fill in the {METHOD_FILE} that python -m src.score --export-protocol wrote."
        )
    try:
        found = json.loads(path.read_text("utf8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); repair it.") from error
    keys = ("layout", "protocol", *DECLARED)
    if not isinstance(found, dict) or found.keys() != set(keys):
        raise ValueError(
            f"{path} must hold exactly {', '.join(keys)}; found {', '.join(map(str, found)) or 'nothing'}."
        )
    if found["layout"] != LAYOUT_VERSION:
        raise ValueError(
            f"{path} is of layout {found['layout']}, this code reads {LAYOUT_VERSION}; export the protocol again."
        )
    if found["protocol"] != protocol.name:
        raise ValueError(
            f"{folder} was rendered for protocol {found['protocol']}, this configuration's is {protocol.name}: other "
            "scenes, episodes or resolution; export the protocol again and render that."
        )
    for key in DECLARED:
        if not isinstance(found[key], str) or not found[key].strip():
            raise ValueError(f"{path} leaves {key} empty; declare it in words, 'unknown' if need be.")
    return Method(*(found[key].strip() for key in DECLARED))


class Submission:
    """The renders of a method, listed and found complete. alignments: those that it has."""

    def __init__(self, folder: Path, protocol: Protocol):
        """raises FileNotFoundError, ValueError"""
        self.folder, self.resolution = folder, protocol.resolution
        self.method = read_method(folder, protocol)
        self.alignments = [name for name in ALIGNMENTS if name == REQUIRED or (folder / name).exists()]
        wanted = {(about["episode"], target) for about in protocol.episodes for target in about["targets"]}
        for alignment in self.alignments:
            self.check_listed(folder / alignment, wanted)

    def check_listed(self, folder: Path, wanted: set[tuple[str, str]]) -> None:
        """raises FileNotFoundError, ValueError when the folder lacks a wanted picture, or holds another or one twice"""
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing; it must hold a picture of each of {len(wanted)} targets.")
        found: list[tuple[str, str]] = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            parts = path.relative_to(folder).parts
            if len(parts) == 1 and path.suffix == ".safetensors":
                with open_tensors(path) as file:
                    found += [(path.stem, name) for name in file.keys()]
            elif len(parts) == 2 and path.suffix == ".png":
                found.append((parts[0], unquote(path.stem)))
            else:
                raise ValueError(
                    f"{path} has no place in layout {LAYOUT_VERSION}; wanted <episode>/<target>.png or "
                    "<episode>.safetensors."
                )
        if missing := wanted - set(found):
            raise ValueError(
                f"{folder} lacks {len(missing)} of {len(wanted)} targets: {some(map('/'.join, missing))}; render them."
            )
        if other := set(found) - wanted:
            raise ValueError(
                f"{folder} holds {len(other)} pictures that are no target of this protocol: "
                f"{some(map('/'.join, other))}; take them away."
            )
        if len(found) > len(wanted):
            twice = {each for each in found if found.count(each) > 1}
            raise ValueError(
                f"{folder} holds {len(twice)} targets twice, as PNG and in a safetensors file: "
                f"{some(map('/'.join, twice))}; keep one of each."
            )

    def pictures(self, alignment: str, episode: str, targets: list[str]) -> list[Tensor]:
        """The targets' pictures, each (3, H, W) float32.

        raises ValueError when one cannot be read, or has another size, type or range
        """
        folder = self.folder / alignment
        path = folder / f"{episode}.safetensors"
        if not path.exists():
            return [self.read_png(folder / episode / file_name(name)) for name in targets]
        with open_tensors(path) as file:
            tensors = [file.get_tensor(name) for name in targets]
        for name, tensor in zip(targets, tensors):
            self.check_tensor(f"{path}, target {name},", tensor)
        return [tensor.float() for tensor in tensors]

    def read_png(self, path: Path) -> Tensor:
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path} cannot be read as PNG ({error}); write it again.") from error
        if image.mode != "RGB":
            raise ValueError(f"{path} is a picture of mode {image.mode}; wanted RGB with 8 bits, without transparency.")
        if image.size != self.resolution:
            raise ValueError(
                f"{path} is {image.width} x {image.height} pixels; wanted {self.resolution[0]} x {self.resolution[1]}."
            )
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255

    def check_tensor(self, what: str, tensor: Tensor) -> None:
        width, height = self.resolution
        if tuple(tensor.shape) != (3, height, width) or not tensor.is_floating_point():
            raise ValueError(
                f"{what} is {tensor.dtype} of shape {tuple(tensor.shape)}; wanted floating point (3, {height}, {width})."
            )
        if not tensor.isfinite().all() or tensor.min() < 0 or tensor.max() > BRIGHTEST:
            raise ValueError(
                f"{what} has values from {tensor.min():g} to {tensor.max():g}; wanted sRGB in [0, 1], a little above "
                "where light adds up."
            )


def open_tensors(path: Path) -> safe_open:
    """raises ValueError"""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}); write it again.") from error
