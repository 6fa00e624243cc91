"""Files of Gaussians in the formats that splat viewers know; the ending of the name says which."""

from pathlib import Path

from src.renders.compressed_ply import is_compressed, unpacked_gaussians, write_compressed_ply
from src.renders.ply import gaussians_of, open_ply, write_ply
from src.renders.splat import read_splat, write_splat
from src.splatting.gaussians import Gaussians

WRITERS = {".splat": write_splat, ".compressed.ply": write_compressed_ply, ".ply": write_ply}  # the longer ending first


def ending_of(path: str | Path) -> str:
    """The format's ending.

    raises    ValueError  for other endings
    """
    for ending in WRITERS:
        if str(path).lower().endswith(ending):
            return ending
    raise ValueError(f"{path} must end in .ply, .splat or .compressed.ply; the ending says which format is meant.")


def write_gaussians(path: str | Path, gaussians: Gaussians) -> None:
    """Write N Gaussians; only a .ply holds them as they are, see the other formats' writers.

    raises    ValueError  for other endings, and for another format where there is no Gaussian or one is not finite
    """
    ending = ending_of(path)
    if ending != ".ply" and not len(gaussians):
        raise ValueError(f"There is no Gaussian to write to {path}; an empty scene can be a .ply only.")
    if ending != ".ply" and (broken := int((~gaussians.finite).sum())):
        raise ValueError(
            f"{broken} of {len(gaussians)} Gaussians hold numbers that are not finite, or no rotation; {path} cannot "
            "hold them, so name a .ply file."
        )
    WRITERS[ending](path, gaussians)


def read_gaussians(path: str | Path) -> Gaussians:
    """Gaussians of a file as they are, those that are not finite included; of a .ply its content says which kind it is.

    raises    ValueError  for other endings, and when the file is not of the format, or is cut short
    """
    if ending_of(path) == ".splat":
        return read_splat(path)
    ply = open_ply(path)
    return unpacked_gaussians(ply, path) if is_compressed(ply) else gaussians_of(ply, path)
