"""Captures that COLMAP reconstructed: a folder with images/ and a model in sparse/0/ or sparse/, binary or text.

Depth maps of stereo/depth_maps/, which belong to straightened images, are used where they are; without them the
reconstruction's points tell how much the images overlap.
"""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Iterator

from src.datasets.captures import CaptureLayout
from src.datasets.colmap_model import MODEL_FILES, READERS, ImageEntry, LensEntry, camera_of, read_images, read_points
from src.datasets.photographs import ListedPhotograph, photograph, read_image
from src.datasets.raw_files import RawFiles, check_inside, relative_path
from src.datasets.recording import Recording
from src.datasets.usable import BadFrame, Tally
from src.parameters.datasets import ColmapSource
from src.scenes.pixels import BadPixels
from src.scenes.reconstruction import Points
from src.scenes.scene import Frame

IMAGES, DEPTH_MAPS, MODELS = "images", "stereo/depth_maps", ("sparse/0", "sparse")


def model_of(folder: Path) -> tuple[str, str] | None:
    """The folder below `folder` that holds a model, and its files' ending; of both forms the binary, as COLMAP does."""
    for model in MODELS:
        for ending in READERS:
            if all((folder / model / f"{name}{ending}").is_file() for name in MODEL_FILES):
                return model, ending
    return None


def has_model(folder: Path) -> bool:
    """Whether a folder is a capture: broken ones too, for which there is a sentence."""
    return (folder / IMAGES).is_dir() and (folder / "sparse").is_dir()


def below(folder: str, *parts: str) -> str:
    """A path below a capture's folder, relative to the dataset's root."""
    return PurePosixPath(folder, *parts).as_posix()


def listed_images(folder: str, pairs: list[tuple[LensEntry, ImageEntry]]) -> list[ListedPhotograph]:
    """The images of a model, in natural order of their names.

    raises    ValueError for a name that leads out of the folder
    """
    listed = []
    for number, (_, image) in enumerate(pairs):
        name = relative_path(image.name, f"{folder}: the COLMAP model")
        depth = below(folder, DEPTH_MAPS, f"{name}.geometric.bin")
        listed.append(ListedPhotograph(name, number, below(folder, IMAGES, name), depth, depth_unit=1.0))
    return listed


def listed_model(root: Path, folder: str, source: ColmapSource) -> tuple[RawFiles, dict]:
    """The files of one capture, and what the manifest says about it.

    raises    ValueError for a model that is missing, broken or empty
    """
    if (found := model_of(root / folder)) is None:
        names = " or ".join(f"{name}{{{','.join(READERS)}}}" for name in MODEL_FILES)
        raise ValueError(
            f"{folder}/{MODELS[0]} holds no COLMAP model ({names} are wanted); run colmap mapper, or copy its output there."
        )
    model, ending = found
    pairs = read_images(ending, lambda name: (root / folder / model / name).read_bytes())
    if not pairs:
        raise ValueError(f"{folder}/{model} is a COLMAP model without images; run colmap mapper again.")
    photographs = listed_images(folder, pairs)
    planes = [path for listed in photographs for path in (listed.image, listed.depth) if path]
    for path in planes:
        check_inside(root / path, root / folder)
    files = RawFiles.found(root, planes + [below(folder, model, f"{name}{ending}") for name in MODEL_FILES])
    if others := sorted(
        path.name for path in (root / folder / "sparse").iterdir() if path.is_dir() and path.name != "0"
    ):
        print(f"download: {folder}: of its models {MODELS[0]} is read, not {', '.join(others)}", flush=True)
    return files, {"model": model, "ending": ending, "listed": len(photographs)}


def model_frames(root: Path, list_file: Path, scene: dict, tally: Tally) -> Iterator[Frame]:
    """Every image of a capture that can be read, straightened; the tally is told about the others."""
    files = RawFiles.of_list(root, list_file)
    pairs = read_images(scene["ending"], lambda name: files.read(below(scene["folder"], scene["model"], name)))
    for (lens, image), listed in zip(pairs, listed_images(scene["folder"], pairs)):
        try:
            taken = camera_of(lens, image)
            if not taken.lens.straight and listed.depth in files:
                listed = ListedPhotograph(**vars(listed) | {"depth": None})
                tally.lose("depth_unusable", listed.name, "a depth map of COLMAP belongs to a straightened image.")
            yield photograph(files, listed, read_image(files, listed.image), taken, taken.K, tally)
        except (BadPixels, BadFrame) as error:
            tally.skip(error.reason, listed.name, str(error))


def model_points(root: Path, list_file: Path, scene: dict) -> Points:
    """The reconstruction's points, and which of them each image observed."""
    files = RawFiles.of_list(root, list_file)
    points = read_points(scene["ending"], lambda name: files.read(below(scene["folder"], scene["model"], name)))
    observed = {relative_path(name, scene["folder"]): seen for name, seen in (points.observed or {}).items()}
    return Points(points.xyz, observed)


def capture_of_model(source: ColmapSource, root: Path, list_file: Path, scene: dict, common: dict) -> Recording:
    """One capture of the manifest."""
    return Recording(
        **common,
        frames=partial(model_frames, root, list_file, scene),
        points=partial(model_points, root, list_file, scene),
    )


COLMAP = CaptureLayout(
    "colmap",
    "a capture (images/ and sparse/0/ with the model of COLMAP), or one folder per capture",
    has_model,
    listed_model,
    capture_of_model,
)
