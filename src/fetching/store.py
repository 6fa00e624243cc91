"""How weight files are fetched, and kept: a folder with record.json, and model.safetensors where there are tensors."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src.config import Config
from src.fetching.fetch import obtain
from src.fetching.packages import INSTALL, installed
from src.pretrained.source import Source
from src.reproducible.files import write_json
from src.reproducible.hashes import file_hash

MODEL_FILE = "model.safetensors"


def cache() -> Path:
    """Where downloads stay between runs, a part of one included; Git and DVC leave it alone."""
    return Path(os.environ.get("DVC_ROOT", ".")) / "scratch" / "downloads"


def fetched(source: Source, config: Config, wanted_by: str, otherwise: str) -> tuple[Path, dict[str, str]]:
    """Path of the file, after printing its licence; and what its record says of it: source, licence, road, sha256.

    There are three roads. `weights.root`, where it is set, is the only one. Else a package that ships the weights goes
    first, where it is installed. Else the publisher is asked, or `weights.mirror`, unless an earlier download is there.
    Of weights on the hub, config.json lies beside the file.

    raises  FetchError
    """
    packaged = source.packaged
    if packaged and config.weights.root is None:
        if path := installed(packaged):
            origin = f"package {packaged.package} {packaged.version}"
            print(f"weights: {packaged.title} from {origin}, {packaged.licence}", flush=True)
            about = {"source": f"{packaged.file} of {origin}", "licence": packaged.licence, "road": "package"}
            return path, about | {"sha256": packaged.sha256}
        otherwise = f"install the package that ships {packaged.title} by {INSTALL}, or {otherwise}"

    def one(part: Source) -> Path:
        return obtain(part, config.weights.root, config.weights.mirror, cache(), wanted_by, otherwise)

    if source.name.endswith(f"/{MODEL_FILE}"):
        url, file = (name.removesuffix(MODEL_FILE) + "config.json" for name in (source.url, source.name))
        one(replace(source, url=url, file=file, megabytes=0))
    path = one(source)
    print(f"weights: {source.name}; licence: {source.licence}", flush=True)
    road = "download" if config.weights.root is None else "weights.root"
    return path, {"source": source.url, "licence": source.licence, "road": road, "sha256": file_hash(path)}


def renew(folder: Path, record: dict, tensors: dict[str, Tensor] | None = None) -> None:
    """Replace what `folder` holds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if tensors is not None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / MODEL_FILE)
    write_json(folder / "record.json", record)
