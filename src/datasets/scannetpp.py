"""ScanNet++: photographs of a DSLR camera in rooms, with metric poses and rendered depth. Never downloaded.

The root holds splits/ and data/, what the toolkit derived beside what was downloaded; or, as Splatt3R has it, raw/ with
both and processed/<scene>/dslr/ with what was derived. Of each scene the `train` list of train_test_lists.json is used:
the `test` photographs are not in capture order.
"""

from functools import partial
from pathlib import Path
from typing import Iterator

import numpy as np

from src.datasets.colmap_model import read_points
from src.datasets.json_node import Node
from src.datasets.lenses import fisheye_pinhole, resampling
from src.datasets.photographs import ListedPhotograph, photograph, read_image
from src.datasets.processes import in_processes
from src.datasets.raw_files import RawFiles, check_inside
from src.datasets.recording import Catalogue, Recording
from src.datasets.splits import share_of
from src.datasets.transforms_json import Camera, FrameEntry, camera, read_transforms
from src.datasets.usable import BadFrame, SceneDropped, Tally
from src.parameters.datasets import ScanNetPP
from src.reproducible.files import existing_root
from src.scenes.pixels import BadPixels
from src.scenes.reconstruction import Points
from src.scenes.scene import RELIABLE, VALID, Frame

SCANNETPP_KEY = "datasets.scannetpp.source"
SCANNETPP_ROOT_HOLDS = (
    "ScanNet++ (splits/nvs_sem_train.txt, splits/nvs_sem_val.txt and data/<scene>/dslr/; or raw/ with these and "
    "processed/<scene>/dslr/), which is had by application at https://scannetpp.mlsg.cit.tum.de/scannetpp/"
)
DATASET, INDOOR = "scannetpp", "indoor"
LISTS = {"nvs_sem_train": "train", "nvs_sem_val": "test"}
VALIDATION = 0.05  # share of the training scenes
FOLDERS = {  # of each plane, in order of preference
    "undistorted": {
        "image": ("undistorted_images", "resized_undistorted_images"),
        "depth": ("undistorted_depths",),
        "mask": ("undistorted_anon_masks", "resized_undistorted_masks"),
    },
    "fisheye": {"image": ("resized_images",), "depth": ("render_depth",), "mask": ("resized_anon_masks",)},
}
WORLD = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])  # COLMAP's to that of transforms.json; its own inverse
MILLIMETRE = 0.001
LEFT_AS_IT_WAS = 255  # of an anonymisation mask: the pixel was left as it was


def listed_split(list_name: str, scene: str) -> str:
    """nvs_sem_val is for testing; of nvs_sem_train a share that depends on the scene's name alone validates."""
    held_out = LISTS[list_name] == "train" and share_of(DATASET, INDOOR, scene) < VALIDATION
    return "val" if held_out else LISTS[list_name]


def listed_scenes(root: Path) -> list[tuple[str, str]]:
    """(id, split) of every scene of the official split files.

    raises    FileNotFoundError without them; ValueError for an impossible name, or a name listed twice
    """
    scenes = {}
    for name in LISTS:
        path = base_of(root) / "splits" / f"{name}.txt"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.relative_to(root)} is missing in {SCANNETPP_KEY}.root; it must hold {SCANNETPP_ROOT_HOLDS}."
            )
        for id in path.read_text(encoding="utf8").split():
            if not id.replace("_", "").isalnum():
                raise ValueError(f"{path.relative_to(root)} lists {id!r}, which is no scene's name; repair the list.")
            if id in scenes:
                raise ValueError(
                    f"scene {id} is listed twice in {', '.join(LISTS)}, but may be in one split only; repair the lists."
                )
            scenes[id] = listed_split(name, id)
    return list(scenes.items())


def base_of(root: Path) -> Path:
    return root / "raw" if (root / "raw").is_dir() else root


class Places:
    """Where the files of one scene are, relative to the root.

    raises    SceneDropped `incomplete_scene` naming the first one that is missing
    """

    def __init__(self, root: Path, scene: str, images: str):
        self.root, self.images = root, images
        self.downloaded = f"{base_of(root).relative_to(root).as_posix()}/data/{scene}/dslr".removeprefix("./")
        processed = (root / "processed").is_dir()
        self.derived = f"processed/{scene}/dslr" if processed else self.downloaded
        self.lists = self.file(f"{self.downloaded}/train_test_lists.json")
        self.fisheye = self.file(f"{self.downloaded}/nerfstudio/transforms.json")
        self.cameras = self.fisheye
        if images == "undistorted":
            self.cameras = self.file(f"{self.derived}/nerfstudio/transforms_undistorted.json")
        self.planes = {plane: self.folder(plane, names) for plane, names in FOLDERS[images].items()}
        model = [f"{self.downloaded}/colmap/{name}.txt" for name in ("images", "points3D")]
        self.model = model if self.planes["depth"] is None and all((root / path).is_file() for path in model) else []

    def file(self, path: str) -> str:
        if not (self.root / path).is_file():
            raise SceneDropped("incomplete_scene", f"{path} is missing")
        return path

    def folder(self, plane: str, names: tuple[str, ...]) -> str | None:
        """The first folder there is; the photographs' must exist."""
        places = [f"{side}/{name}" for name in names for side in dict.fromkeys((self.derived, self.downloaded))]
        for place in places:
            if (self.root / place).is_dir():
                return place
        if plane == "image":
            raise SceneDropped("incomplete_scene", f"{places[0]} is missing")
        return None

    @property
    def known(self) -> dict:
        """As JSON."""
        return {key: getattr(self, key) for key in ("images", "lists", "fisheye", "cameras", "planes", "model")}


def photographs(places: dict, lists: Node) -> list[ListedPhotograph]:
    """The `train` list of a scene, in its order.

    raises    ValueError for a name that is no file name
    """
    listed = []
    for number, node in enumerate(lists["train"].items()):
        name = node.text()
        if "/" in name or "\\" in name or name.startswith("."):
            raise node.fault(f"found {name!r}, wanted the bare name of a photograph")
        image, depth, mask = (
            folder and f"{folder}/{file}"
            for folder, file in zip(
                (places["planes"][plane] for plane in ("image", "depth", "mask")),
                (name, *[f"{Path(name).stem}.png"] * 2),
            )
        )
        listed.append(ListedPhotograph(name, number, image, depth, MILLIMETRE, mask, LEFT_AS_IT_WAS))
    return listed


def list_room(root: Path, target: Path, images: str, scene: tuple[str, str]) -> dict:
    """Worker: the files of one scene, hashed, into target/scenes/<id>.json; what the manifest says about it."""
    id, split = scene
    try:
        places = Places(root, id, images)
    except SceneDropped as error:
        return {"id": id, "split": split, "dropped": error.reason, "message": str(error)}
    listed = photographs(places.known, Node.read((root / places.lists).read_bytes(), places.lists))
    planes = [path for item in listed for path in (item.image, item.depth, item.keep) if path]
    for path in map(root.joinpath, planes):
        check_inside(path, path.parent)
    files = RawFiles.found(root, {places.lists, places.fisheye, places.cameras, *places.model, *planes})
    files.write_list(target / "scenes" / f"{id}.json")
    return {"id": id, "split": split, "places": places.known, "listed": len(listed), "fingerprint": files.fingerprint}


def list_rooms(dataset: ScanNetPP, target: Path, workers: int) -> dict:
    """List every scene of the official splits and its files; nothing is copied.

    raises    ValueError, FileNotFoundError for the root and the split files; ValueError for a broken list
    """
    root = existing_root(dataset.source.root, f"{SCANNETPP_KEY}.root", SCANNETPP_ROOT_HOLDS)
    job = partial(list_room, root, target, dataset.source.images)
    return {"dataset": DATASET, "scenes": in_processes(job, listed_scenes(root), workers, "list scenes")}


class Room:
    """The cameras of one scene, read once.

    fisheye   entries of the downloaded transforms.json by photograph: the lens, and which photographs are blurred
    cameras   entries of the file that holds the cameras of the photographs used
    """

    def __init__(self, files: RawFiles, places: dict):
        self.undistorted = places["images"] == "undistorted"
        self.listed = photographs(places, files.json(places["lists"]))
        self.fisheye, self.cameras = (
            {entry.frame["file_path"].text(): entry for entry in entries(files, places[key])}
            for key in ("fisheye", "cameras")
        )

    def camera(self, name: str, size: tuple[int, int], tally: Tally) -> tuple[Camera, np.ndarray, Camera | None]:
        """What took a photograph, the camera matrix (3, 3) it is to be resampled for, and the fisheye that the
        toolkit resampled it from.

        raises    BadFrame
        """
        taken = camera(self.cameras[name], size, tally)
        if self.undistorted:
            return taken, taken.K, camera(self.fisheye[name], size, Tally())
        return taken, fisheye_pinhole(taken.K, taken.lens, taken.size), None


def entries(files: RawFiles, path: str) -> list[FrameEntry]:
    top = read_transforms(files.read(path), path)
    return [FrameEntry(top, frame) for frame in top["frames"].items()]


def blurred(entry: FrameEntry) -> bool:
    node = entry.frame.get("is_bad")
    return node is not None and bool(node.typed(bool, int))


def room_frames(root: Path, list_file: Path, places: dict, tally: Tally) -> Iterator[Frame]:
    """Every photograph of the `train` list that can be used; the tally is told about the others."""
    files = RawFiles.of_list(root, list_file)
    room, seen = Room(files, places), set()
    for listed in room.listed:
        if listed.name in seen:
            tally.skip("duplicate_record", listed.name, "it is listed twice.")
        elif listed.name not in room.cameras or listed.name not in room.fisheye:
            tally.skip("orphan_entry", listed.name, "transforms.json has no pose for it.")
        elif blurred(room.fisheye[listed.name]):
            tally.skip("blurry", listed.name, "transforms.json calls it bad.")
        else:
            try:
                yield room_frame(files, room, listed, tally)
            except (BadPixels, BadFrame) as error:
                tally.skip(error.reason, listed.name, str(error))
        seen.add(listed.name)


def room_frame(files: RawFiles, room: Room, listed: ListedPhotograph, tally: Tally) -> Frame:
    """raises BadPixels, BadFrame"""
    pixels = read_image(files, listed.image)
    taken, pinhole, before = room.camera(listed.name, pixels[0].shape[1::-1], tally)
    frame = photograph(files, listed, pixels, taken, pinhole, tally)
    if before is None or before.size != frame.size:
        return frame
    # the toolkit fills what lies outside the fisheye photograph by mirroring, and calls it valid
    inside = resampling(before.K, before.lens, before.size, frame.K).inside
    return with_valid(frame, inside)


def with_valid(frame: Frame, inside: np.ndarray) -> Frame:
    """A frame of which only the pixels `inside` (H, W) bool stay valid."""
    if inside.all():
        return frame
    flags = np.full(inside.shape, VALID | RELIABLE, np.uint8) if frame.flags is None else frame.flags
    return Frame(**vars(frame) | {"flags": np.where(inside, flags, flags & ~np.uint8(VALID))})


def room_points(root: Path, list_file: Path, model: list[str]) -> Points:
    """The reconstruction's points in the world of transforms.json."""
    files = RawFiles.of_list(root, list_file)
    folder = Path(model[0]).parent
    points = read_points(".txt", lambda name: files.read((folder / name).as_posix()))
    observed = {Path(name).name: seen for name, seen in (points.observed or {}).items()}  # without their folders
    return Points(points.xyz @ WORLD.T, observed)


def room_recording(root: Path, raw: Path, scene: dict) -> Recording:
    """One scene of the manifest."""
    places, list_file = scene["places"], raw / "scenes" / f"{scene['id']}.json"
    points = partial(room_points, root, list_file, places["model"]) if places["model"] else None
    return Recording(
        scene["id"],
        INDOOR,
        scene["split"],
        "metre",
        scene["listed"],
        partial(room_frames, root, list_file, places),
        {
            "license": "ScanNet++ Terms of Use",
            "source": {"fingerprint": scene["fingerprint"], "images": places["images"]},
        },
        points=points,
        fingerprint=partial(str, scene["fingerprint"]),
    )


def listed_rooms(dataset: ScanNetPP, raw: Path, manifest: dict) -> Catalogue:
    """The scenes that `download` listed."""
    root = existing_root(dataset.source.root, f"{SCANNETPP_KEY}.root", SCANNETPP_ROOT_HOLDS)
    skipped = {}
    for scene in manifest["scenes"]:
        if "dropped" in scene:
            skipped.setdefault(scene["dropped"], []).append(f"{scene['id']} ({scene['message']})")
    recordings = [room_recording(root, raw, scene) for scene in manifest["scenes"] if "dropped" not in scene]
    return Catalogue(DATASET, recordings, skipped, on_bad_frame=dataset.source.on_bad_frame)
