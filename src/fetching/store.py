"""How weight files are fetched, and kept: a folder with record.json, and model.safetensors where there are tensors."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src.config import Config
from src.fetching.fetch import FetchError, download, offline, verify
from src.fetching.hugging_face import from_hub
from src.fetching.packages import INSTALL, installed
from src.pretrained.source import Source
from src.reproducible.files import whole_file, write_json
from src.reproducible.hashes import file_hash

MODEL_FILE = "model.safetensors"


def cache() -> Path:
    """Where downloads stay between runs, a part of one included; Git and DVC leave it alone."""
    return Path(os.environ.get("DVC_ROOT", ".")) / "scratch" / "downloads"


def obtain(
    source: Source,
    root: str | Path | None,
    mirror: str | None,
    cache: Path,
    wanted_by: str,
    otherwise: str,
    pause: float = 1.0,
) -> Path:
    """Path of a verified copy of `source`.

    root       a folder filled by hand; where it is given nothing else is looked at
    mirror     an address that serves the same file names, asked instead of the publisher
    cache      where a copy may be placed by hand, and where downloads are kept, except the hub's: it has its own cache
    wanted_by  the parameter that asks for the file, e.g. "model.weights=pretrained"
    otherwise  what else the user can do, e.g. "set model.weights=random"
    raises     FetchError  one sentence with what failed and all remedies
    """
    if root is not None:
        path = Path(root) / source.name
        if not path.is_file():
            raise FetchError(
                f"{wanted_by} needs {source.name}, which is not in weights.root ({root}); place it there "
                f"(official address: {source.url}), or {otherwise}."
            )
        verify(path, source.sha256, str(path))
        return path
    path = cache / source.name
    if path.is_file():
        verify(path, source.sha256, str(path))
        return path
    remedies = (
        f"place the file by hand at {path}, or in a folder named by weights.root, or name a server that has it "
        f"in weights.mirror, or {otherwise}"
    )
    url = f"{mirror.rstrip('/')}/{source.name}" if mirror else source.url
    try:
        if source.on_hub and not mirror:
            path = from_hub(source, *source.on_hub)
            verify(path, source.sha256, str(path))
            return path
        if offline():
            raise FetchError("HF_HUB_OFFLINE is set, so nothing is downloaded")
        print(f"fetching {url} (about {source.megabytes} MB)", flush=True)
        download(url, path, source.sha256, pause=pause)
    except FetchError as error:
        terms = " (the publisher asks you to accept its terms there first)" if source.gated else ""
        raise FetchError(f"{wanted_by} needs {source.name}{terms}, but {error}; {remedies}.") from error
    return path


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
        with whole_file(folder / MODEL_FILE) as partial:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    write_json(folder / "record.json", record)
