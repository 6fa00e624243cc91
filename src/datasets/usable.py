"""What makes a photograph or a whole scene unusable, and the tally that loses none of them."""

from collections import Counter
from dataclasses import replace
from typing import NoReturn

import numpy as np

from src.parameters.datasets import ON_BAD_FRAME
from src.scenes.crop import OffCentre, symmetric_box
from src.scenes.pixels import BadPixels, content_hash, depth_metres
from src.scenes.scene import RELIABLE, Frame

ROTATION_LIMIT, ROTATION_COUNTED, ROTATION_NOISE = 1e-3, 1e-5, 1e-9  # of max |R R^T - I|
VIEW_ANGLES = 5.0, 170.0  # degrees
FAR_FROM_ORIGIN, FAR_FROM_OTHERS = (
    1e5,
    100.0,
)  # camera centre's distance from the origin: at all, and over the scene's median
OUTLIERS = 0.1  # share of outlying cameras above which no camera of the scene is trusted


class BadFrame(ValueError):
    """A photograph that cannot be used; `reason` is the word it is counted under."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class SceneDropped(ValueError):
    """A scene that cannot be used; `reason` is the word it is counted under."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class Tally:
    """Every photograph of one scene that was not kept, by reason and name, and everything noticed, as numbers.

    With on_bad_frame `error` the first skipped photograph raises instead.
    """

    def __init__(self, on_bad_frame: str = "skip"):
        if on_bad_frame not in ON_BAD_FRAME:
            raise ValueError(f"on_bad_frame is {on_bad_frame!r}; choose one of {', '.join(ON_BAD_FRAME)}.")
        self.on_bad_frame, self.skipped, self.counts = on_bad_frame, {}, Counter()
        self.examples: dict[str, str] = {}  # reason -> the first photograph skipped for it, and its fault

    def skip(self, reason: str, name: str, message: str) -> None:
        if self.on_bad_frame == "error":
            raise ValueError(
                f"photograph {name} is unusable ({reason}): {message} Repair it, or set on_bad_frame to skip."
            )
        self.skipped.setdefault(reason, []).append(name)
        self.examples.setdefault(reason, f"{name}: {message.rstrip('.')}")

    def lose(self, word: str, name: str, message: str) -> None:
        """A plane of a photograph that is left out, the photograph kept."""
        if self.on_bad_frame == "error":
            raise ValueError(f"photograph {name}: {message} Repair it, or set on_bad_frame to skip.")
        self.count(word)

    def count(self, word: str, number: int = 1) -> None:
        if number:
            self.counts[word] += number

    def drop(self, reason: str, names: list[str], message: str) -> NoReturn:
        """Give the scene up; the photographs that are left count as skipped for the same reason.

        raises    SceneDropped
        """
        if names:
            self.skipped.setdefault(reason, []).extend(names)
        self.examples.setdefault(reason, message.rstrip("."))
        raise SceneDropped(reason, message)

    @property
    def total_skipped(self) -> int:
        return sum(map(len, self.skipped.values()))


def checked_pose(c2w: np.ndarray, tally: Tally) -> np.ndarray:
    """c2w (4, 4) with its rotation made exactly orthonormal.

    raises    BadFrame `nonfinite_pose` or `bad_rotation` (reflections included); ValueError when the last row is not
              (0, 0, 0, 1), which no dataset may have
    """
    if not np.isfinite(c2w).all():
        raise BadFrame("nonfinite_pose", "the pose holds NaN or infinity.")
    if not np.array_equal(c2w[3], [0, 0, 0, 1]):
        raise ValueError(f"the last row of a pose is {c2w[3].tolist()}, not 0, 0, 0, 1: no camera-to-world matrix.")
    rotation = c2w[:3, :3]
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if off > ROTATION_LIMIT or np.linalg.det(rotation) < 0.99:
        raise BadFrame(
            "bad_rotation",
            f"the pose is no rotation: R R^T is {off:.2g} off the identity, det R is {np.linalg.det(rotation):.3f}.",
        )
    if off <= ROTATION_NOISE:
        return c2w
    tally.count("rotation_fixed", int(off > ROTATION_COUNTED))
    u, _, vt = np.linalg.svd(rotation)
    fixed = c2w.copy()
    fixed[:3, :3] = u @ vt
    return fixed


def check_intrinsics(K: np.ndarray, size: tuple[int, int]) -> None:
    """raises BadFrame `nonfinite_intrinsics`, `bad_focal` (field of view outside 5..170 degrees) or `pp_off_centre`"""
    if not np.isfinite(K).all():
        raise BadFrame("nonfinite_intrinsics", "the camera matrix holds NaN or infinity.")
    focal, centre = np.diag(K)[:2], K[:2, 2]
    if (focal <= 0).any():
        raise BadFrame("bad_focal", f"the focal lengths are {focal.tolist()}; they must be positive.")
    try:
        symmetric_box(K, size)
    except OffCentre as error:
        raise BadFrame("pp_off_centre", str(error)) from error
    angles = np.degrees(np.arctan(centre / focal) + np.arctan((np.array(size) - centre) / focal))
    if not ((angles >= VIEW_ANGLES[0]) & (angles <= VIEW_ANGLES[1])).all():
        raise BadFrame("bad_focal", f"the field of view is {angles.round(1).tolist()} degrees; 5 to 170 is believed.")


def checked_depth(frame: Frame, tally: Tally) -> np.ndarray | None:
    """Depth samples with non-finite and negative ones set to 0; None when nothing usable remains."""
    if frame.depth is None:
        tally.count("depth_missing")
        return None
    depth = frame.depth
    if depth.dtype == np.float16:
        bad = ~np.isfinite(depth) | (depth < 0)
        tally.count("depth_pixels_zeroed", int(bad.sum()))
        depth = np.where(bad, np.float16(0), depth)
    usable = depth_metres(depth, frame.depth_scale) > 0
    if frame.flags is not None:
        usable &= (frame.flags & RELIABLE) > 0
    if not usable.any():
        tally.count("depth_all_zero")
        return None
    return depth


def check_frame(frame: Frame, tally: Tally) -> Frame:
    """One photograph on its own, its pose and depth cleaned.

    raises    BadFrame
    """
    check_intrinsics(frame.K, frame.size)
    c2w = checked_pose(frame.c2w, tally)
    if not frame.image.any():
        raise BadFrame("redacted", "the image is black everywhere.")
    if frame.fg is not None and not frame.fg.any():
        tally.count("mask_empty")
    return replace(frame, c2w=c2w, depth=checked_depth(frame, tally))


def check_scene(frames: list[Frame], tally: Tally, min_frames: int) -> list[Frame]:
    """The photographs of one scene beside each other: in capture order, without doubles and stray cameras.

    raises    SceneDropped `pose_outlier`, `bad_focal`, `one_place` or `too_few_frames`; ValueError when one frame number
              or name stands for two different pictures
    """
    if any(a.frame_number > b.frame_number for a, b in zip(frames, frames[1:])):
        tally.count("reordered")
    frames = without_outliers(without_doubles(sorted(frames, key=lambda frame: frame.frame_number), tally), tally)
    poses = {frame.c2w.tobytes() for frame in frames}
    tally.count("identical_poses", len(frames) - len(poses))
    names = [frame.name for frame in frames]
    if not frames and set(tally.skipped) == {"bad_focal"}:
        tally.drop("bad_focal", [], "no photograph has a believable focal length.")
    if len(frames) > 1 and (np.ptp([frame.c2w[:3, 3] for frame in frames], axis=0) == 0).all():
        tally.drop("one_place", names, f"all {len(frames)} cameras stand in one place, which shows no depth.")
    if len(frames) < min_frames:
        tally.drop("too_few_frames", names, f"{len(frames)} usable photographs, {min_frames} are needed.")
    return frames


def without_doubles(frames: list[Frame], tally: Tally) -> list[Frame]:
    """The first of records that name one photograph twice, and of photographs with equal pixels."""
    kept, by_label, contents = [], {}, set()
    for frame in frames:
        content = content_hash(frame.image)
        earlier = [by_label[label] for label in (frame.name, frame.frame_number) if label in by_label]
        if any(other != content for other in earlier):
            raise ValueError(
                f"photograph {frame.name} (frame number {frame.frame_number}) is listed twice with "
                "different pictures; repair the list."
            )
        if earlier or content in contents:
            reason = "duplicate_record" if earlier else "duplicate_image"
            tally.skip(reason, frame.name, "another photograph of the scene has the same pixels.")
            continue
        contents.add(content)
        by_label |= {frame.name: content, frame.frame_number: content}
        kept.append(frame)
    return kept


def without_outliers(frames: list[Frame], tally: Tally) -> list[Frame]:
    """Frames whose cameras stand within reason of the others.

    raises    SceneDropped `pose_outlier` when more than a tenth do not
    """
    if not frames:
        return []
    distances = np.array([np.linalg.norm(frame.c2w[:3, 3]) for frame in frames])
    median = np.median(distances)
    outlying = (distances > FAR_FROM_ORIGIN) | ((distances > FAR_FROM_OTHERS * median) & (median > 0))
    if outlying.mean() > OUTLIERS:
        tally.drop(
            "pose_outlier",
            [frame.name for frame in frames],
            f"{outlying.sum()} of {len(frames)} cameras are absurdly far away.",
        )
    for frame in (frame for frame, out in zip(frames, outlying) if out):
        tally.skip("pose_outlier", frame.name, f"its camera is {np.linalg.norm(frame.c2w[:3, 3]):.3g} units away.")
    return [frame for frame, out in zip(frames, outlying) if not out]


def usable_frames(frames, tally: Tally):
    """Frames of an iterable that pass `check_frame`, one at a time; the others are tallied."""
    for frame in frames:
        try:
            yield check_frame(frame, tally)
        except (BadFrame, BadPixels) as error:
            tally.skip(error.reason, frame.name, str(error))
