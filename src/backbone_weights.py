"""The weights of a run's backbone, from wherever model.weights says; and how weight files are fetched and kept."""

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from src import hub
from src.backbones import build
from src.backbones.controls import Shuffled
from src.backbones.dinov2 import DinoV2
from src.config import Config
from src.fetch import Source, obtain
from src.provenance import file_hash, write_json

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


def backbone_weights(config: Config, folder: Path) -> None:
    """Random weights are a seed in the record; others become safetensors under the network's own names. Which of its
    blocks will be read is no matter here, so that choosing others fetches nothing anew.

    raises    FetchError, CheckpointError, FileNotFoundError, ValueError  each says what can be done
    """
    network = build(replace(config.model, backbone_layers=None), config.seed)
    choice = network.own_weights or config.model.weights
    weights = "none" if network.num_parameters == 0 else choice if choice in ("random", "pretrained") else "file"
    record = {"name": network.name, "weights": weights, "label": network.label(weights), "licence": network.licence,
              "source": "none" if weights == "none" else "drawn from the seed", "sha256": None,
              "channels": network.channels, "patch_size": network.patch_size}
    record |= {"note": network.note} if network.note else {}
    record |= {"described": asdict(network.described)} if network.described else {}
    if weights in ("none", "random"):
        return renew(folder, record | ({"seed": config.seed} if weights == "random" else {}))
    if weights == "file":
        path = Path(choice)
        if not path.is_file():
            raise FileNotFoundError(f"model.weights is {choice!r}, which is no file; choose random, pretrained, or the "
                                    "path of a weight file.")
        record |= {"source": path.name, "licence": "unknown"}
    elif network.source is None:
        raise ValueError(f"model.weights is pretrained, but nobody publishes weights of {network.title}; set "
                         "model.weights=random, or to the path of a file.")
    else:
        path = fetched(network.source, config, "model.weights=pretrained",
                       "set model.weights=random for the untrained control, or to the path of a weight file")
        record |= {"source": network.source.url}
    tensors, inner = network.read(path), network.inner[0] if isinstance(network, Shuffled) else network
    if weights == "pretrained" and config.weights.dinov2_source == "torchhub" and isinstance(inner, DinoV2):
        hub.load(inner, tensors, config.weights.root, str(path))
        record |= {"source": f"{network.source.url}, by torch.hub {hub.REPOSITORY}:{hub.COMMIT}"}
    else:
        network.load(tensors, str(path))
    renew(folder, record | {"sha256": file_hash(path)}, network.network.state_dict())
