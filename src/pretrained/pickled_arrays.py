"""Nested dictionaries of numpy arrays in a pickle, as JAX projects save weights, read without running what is in it."""

import pickle
from pathlib import Path

import numpy as np

from src.mast3r.weight_file import CheckpointError, opening

RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's maker of empty arrays, which every pickled array names
REBUILDERS = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,  # before numpy 2
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
}
BAD_PICKLE = (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError)

Arrays = dict[str, "Arrays | np.ndarray"]


class Refused(Exception):
    """A pickle names something that is no part of an array."""


class ArrayUnpickler(pickle.Unpickler):
    """Knows what an array consists of, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in REBUILDERS:
            raise Refused(f"{module}.{name}")
        return REBUILDERS[module, name]


def read_arrays(path: Path) -> Arrays:
    """Names -> arrays of numbers, nested as in the file.

    raises  CheckpointError  when the file is damaged, names anything but arrays, or holds anything else
    """
    opening(path)
    try:
        with open(path, "rb") as file:
            content = ArrayUnpickler(file).load()
    except Refused as error:
        raise CheckpointError(
            f"{path} wants to create {error}, which no array needs, so it is not read for safety; fetch it again, or "
            "take another weight file."
        ) from error
    except BAD_PICKLE as error:
        raise CheckpointError(
            f"{path} is damaged or no pickle of arrays ({type(error).__name__}); fetch it again."
        ) from error
    if not only_arrays(content):
        raise CheckpointError(f"{path} holds more than nested dictionaries of number arrays; take another weight file.")
    return content


def only_arrays(content: object) -> bool:
    """Whether it is a dictionary of float arrays, or of such dictionaries."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and (value.dtype.kind == "f" if isinstance(value, np.ndarray) else only_arrays(value))
        for name, value in content.items()
    )
