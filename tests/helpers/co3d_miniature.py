"""CO3D v2 as its publisher lays it out, made of procedural scenes whose cameras and depth are known."""

import gzip
import hashlib
import io
import json
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from src.procedural.scenes import generate
from src.scenes.scene import Frame

VIEWS = 12
CUT = slice(2, 58), slice(5, 77)  # of photographs of 80 x 60 pixels: the principal point leaves the centre
FACTOR = 3.7  # scene units per metre
SEQUENCES = {  # category -> sequence -> (scene, set)
    "apple": {"110_13051_23361": (0, "dev"), "189_20393_38136": (1, "dev"), "12_90_489": (2, "test")},
    "vase": {"374_42274_84517": (3, "dev"), "380_44863_89631": (4, "dev")},
}
SUFFIX = "_singlesequence"


@lru_cache
def rendered() -> list[Frame]:
    return generate("objects", 1, VIEWS, (80, 60), 1)


def truth(scene: int) -> list[dict]:
    """By frame: image (H, W, 3), depth (H, W) float64 in scene units, K (3, 3), c2w (4, 4), all in our conventions. All
    scenes come of one rendering, seen in mirrors (bits 1 and 2 of the scene's number) and as a negative (bit 4)."""
    return [mirrored(frame, scene) for frame in rendered()]


def mirrored(frame: Frame, scene: int) -> dict:
    K, c2w, image, depth = frame.K.copy(), frame.c2w.copy(), frame.image[CUT], frame.depth[CUT]
    for axis, cut in ((0, CUT[1]), (1, CUT[0])):
        K[axis, 2] -= cut.start
        if scene >> axis & 1:
            image, depth = np.flip(image, 1 - axis), np.flip(depth, 1 - axis)
            K[axis, 2] = cut.stop - cut.start - K[axis, 2]
            mirror = np.ones(4)
            mirror[axis] = -1
            c2w = mirror[:, None] * c2w * mirror
    c2w[:3, 3] *= FACTOR
    return {
        "image": np.ascontiguousarray(255 - image if scene & 4 else image),
        "depth": depth * (frame.depth_scale * FACTOR),
        "K": K,
        "c2w": c2w,
    }


def viewpoint(K: np.ndarray, c2w: np.ndarray, size: tuple[int, int], isotropic: bool) -> dict:
    """A camera as PyTorch3D writes it; the file states the isotropic format and leaves the other to the default."""
    height, width = size
    sx, sy = (min(size) / 2, min(size) / 2) if isotropic else (width / 2, height / 2)
    world_to_view = np.linalg.inv(c2w)  # column vectors, OpenCV axes
    flipped = np.diag([-1, -1, 1, 1]) @ world_to_view  # PyTorch3D's axes
    about = {
        "R": flipped[:3, :3].T.tolist(),
        "T": flipped[:3, 3].tolist(),
        "focal_length": [K[0, 0] / sx, K[1, 1] / sy],
        "principal_point": [(width / 2 - K[0, 2]) / sx, (height / 2 - K[1, 2]) / sy],
    }
    return about | ({"intrinsics_format": "ndc_isotropic"} if isotropic else {})


def picture(pixels: np.ndarray, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_jgz(path: Path, content: object) -> None:
    write(path, gzip.compress(json.dumps(content).encode(), mtime=0))


def read_jgz(path: Path) -> object:
    return json.loads(gzip.decompress(path.read_bytes()))


def unseen(number: int) -> bool:
    return number % 6 == 5


def write_frame(
    root: Path, folder: str, sequence: str, number: int, frame: dict, hidden: str | None, isotropic: bool
) -> dict:
    """One frame's files and its annotation. hidden: what is blanked, as in the publisher's test set, None | depth |
    all."""
    name, size = f"frame{number + 1:06d}", frame["depth"].shape
    paths = {
        "image": f"{folder}/images/{name}.jpg",
        "depth": f"{folder}/depths/{name}.jpg.geometric.png",
        "reliable": f"{folder}/depth_masks/{name}.png",
        "mask": f"{folder}/masks/{name}.png",
    }
    near = frame["depth"] < np.median(frame["depth"])
    depth = np.where(hidden is None, frame["depth"], 0).astype(np.float16)
    shown = np.uint8(hidden != "all")
    write(root / paths["image"], picture(frame["image"] * shown, "JPEG", quality=95, subsampling=0))
    write(root / paths["depth"], picture(depth.view(np.uint16), "PNG"))
    reliable = frame["depth"] > 0
    reliable[:4] = False
    write(root / paths["reliable"], picture(reliable, "PNG"))
    write(root / paths["mask"], picture(np.where(near, 230, 25).astype(np.uint8) * shown, "PNG"))
    seen = "unseen" if unseen(number) else "known"
    return {
        "sequence_name": sequence,
        "frame_number": number,
        "frame_timestamp": number / 30,
        "image": {"path": paths["image"], "size": list(size)},
        "depth": {"path": paths["depth"], "scale_adjustment": 1.0, "mask_path": paths["reliable"]},
        "mask": {"path": paths["mask"], "mass": float(near.sum())},
        "viewpoint": viewpoint(frame["K"], frame["c2w"], size, isotropic),
        "camera_name": "ignored",
        "meta": {"frame_type": f"{'dev' if hidden is None else 'test'}_{seen}", "frame_splits": ["ignored"]},
    }


def write_category(root: Path, category: str, sequences: dict[str, tuple[int, str]]) -> None:
    frames, about, lists = [], [], {}
    for sequence, (scene, name) in sequences.items():
        entries = {"train": [], "val": [], "test": []}
        for number, frame in enumerate(truth(scene)):
            hidden = None if name == "dev" else "all" if unseen(number) else "depth"
            frames.append(
                write_frame(root, f"{category}/{sequence}", sequence, number, frame, hidden, category == "apple")
            )
            entries["test" if unseen(number) else "train"].append([sequence, number, frames[-1]["image"]["path"]])
        lists[f"manyview_{name}_{sum(name in key for key in lists)}"] = entries
        about.append(
            {
                "sequence_name": sequence,
                "category": category,
                "video": None,
                "viewpoint_quality_score": 1.4,
                "point_cloud": {
                    "path": f"{category}/{sequence}/pointcloud.ply",
                    "quality_score": 0.9,
                    "n_points": None,
                },
            }
        )
    write_jgz(root / category / "frame_annotations.jgz", frames)
    write_jgz(root / category / "sequence_annotations.jgz", about)
    for subset, entries in lists.items():
        write(root / category / f"set_lists/set_lists_{subset}.json", json.dumps(entries).encode())
        write(root / category / f"eval_batches/eval_batches_{subset}.json", b"[]")


def write_dataset(root: Path, sequences: dict[str, dict[str, tuple[int, str]]] = SEQUENCES) -> Path:
    """The whole tree, in `root`."""
    for category, members in sequences.items():
        write_category(root, category, members)
    lists = {
        category: sorted(path.stem.removeprefix("set_lists_") for path in (root / category / "set_lists").iterdir())
        for category in sequences
    }
    write(root / "category_to_subset_name_list.json", json.dumps(lists).encode())
    return root


def zipped(root: Path, files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(files):
            archive.writestr(path.relative_to(root).as_posix(), path.read_bytes())
    return buffer.getvalue()


def published(root: Path) -> dict[str, bytes]:
    """The tree in `root` as files by address below a server's /: two archives per category, the lists of links and of
    checksums. The links' server is "SERVER"."""
    files, links, checksums = {}, {}, {}
    for category in sorted(path.name for path in root.iterdir() if path.is_dir()):
        metadata = [path for path in (root / category).glob("*.jgz")] + [
            path for folder in ("set_lists", "eval_batches") for path in (root / category / folder).glob("*")
        ]
        rest = [path for path in (root / category).rglob("*") if path.is_file() and path not in metadata]
        links[category] = []
        for number, members in enumerate((metadata, rest)):
            files[f"/{category}_{number:03d}{SUFFIX}.zip"] = data = zipped(root, members)
            checksums[f"{category}_{number:03d}.zip"] = hashlib.sha256(data).hexdigest()
            links[category].append(f"SERVER/{category}_{number:03d}{SUFFIX}.zip")
    lists = f"category_to_subset_name_list{SUFFIX}.json"
    files[f"/{lists}"] = (root / "category_to_subset_name_list.json").read_bytes()
    links["METADATA"] = [f"SERVER/{lists}"]
    files["/upstream/links.json"] = json.dumps({"full": {}, "singlesequence": links}).encode()
    files["/upstream/co3d_sha256.json"] = json.dumps({"full": {}, "singlesequence": checksums}).encode()
    return files
