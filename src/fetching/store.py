"""How weight files are fetched, and kept: a folder with record.json, and model.safetensors where there are tensors."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src.config import Config
from src.fetching.fetch import obtain
from src.pretrained.source import Source
from src.reproducible.files import write_json

MODEL = "model.safetensors"


def cache() -> Path:
    """Where downloads stay between runs, a part of one included; Git and DVC leave it alone."""
    return Path(os.environ.get("DVC_ROOT", ".")) / "scratch" / "downloads"


def fetched(source: Source, config: Config, wanted_by: str, otherwise: str) -> Path:
    """Path of the file, after printing its licence; of weights on the hub, config.json lies beside it."""

    def one(part: Source) -> Path:
        return obtain(part, config.weights.root, config.weights.mirror, cache(), wanted_by, otherwise)

    if source.name.endswith(f"/{MODEL}"):
        url, file = (name.removesuffix(MODEL) + "config.json" for name in (source.url, source.name))
        one(replace(source, url=url, file=file, megabytes=0))
    path = one(source)
    print(f"weights: {source.name}; licence: {source.licence}", flush=True)
    return path


def renew(folder: Path, record: dict, tensors: dict[str, Tensor] | None = None) -> None:
    """Replace what `folder` holds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if tensors is not None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / MODEL)
    write_json(folder / "record.json", record)
