"""The points of a COLMAP reconstruction in its text format: images.txt and points3D.txt."""

from pathlib import PurePosixPath

import numpy as np

from src.scenes.reconstruction import Points


def word_rows(data: bytes) -> list[list[str]]:
    """The words of every line that is no comment; an image without points has an empty line."""
    return [line.split() for line in data.decode("utf8").splitlines() if not line.startswith("#")]


def points_of(images: bytes, points3d: bytes) -> Points:
    """World coordinates of all points, and which of them each image (by bare file name) observed.

    raises    ValueError when the files are not COLMAP's
    """
    try:
        names = {int(row[0]): PurePosixPath(row[9]).name for row in word_rows(images)[::2]}
        points = [row for row in word_rows(points3d) if row]
        xyz = np.array([row[1:4] for row in points], np.float64).reshape(-1, 3)
        observed = {name: [] for name in names.values()}
        for number, row in enumerate(points):
            for image in dict.fromkeys(row[8::2]):
                observed[names[int(image)]].append(number)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(
            f"colmap/images.txt or points3D.txt is not a COLMAP text model ({error!r}); get the files "
            "again, or remove them."
        ) from error
    return Points(xyz, {name: np.array(numbers, np.int64) for name, numbers in observed.items()})
