"""The weights of a run's backbone, from wherever model.weights says."""

from dataclasses import asdict, replace
from pathlib import Path

from src.backbones import build_backbone
from src.backbones.controls import Shuffled
from src.backbones.dinov2 import DinoV2
from src.config import Config
from src.fetching import torch_hub
from src.fetching.store import fetched, renew
from src.reproducible.hashes import file_hash


def backbone_weights(config: Config, folder: Path) -> None:
    """Random weights are a seed in the record; others become safetensors under the network's own names. Which of its
    blocks will be read is no matter here, so that choosing others fetches nothing anew.

    raises    FetchError, CheckpointError, FileNotFoundError, ValueError  each says what can be done
    """
    network = build_backbone(replace(config.model, backbone_layers=None), config.seed)
    choice = network.own_weights or config.model.weights
    weights = "none" if network.num_parameters == 0 else choice if choice in ("random", "pretrained") else "file"
    record = {
        "name": network.name,
        "weights": weights,
        "label": network.label(weights),
        "licence": network.licence,
        "source": "none" if weights == "none" else "drawn from the seed",
        "sha256": None,
        "channels": network.channels,
        "patch_size": network.patch_size,
    }
    record |= {"note": network.note} if network.note else {}
    record |= {"described": asdict(network.described)} if network.described else {}
    if weights in ("none", "random"):
        return renew(folder, record | ({"seed": config.seed} if weights == "random" else {}))
    if weights == "file":
        path = Path(choice)
        if not path.is_file():
            raise FileNotFoundError(
                f"model.weights is {choice!r}, which is no file; choose random, pretrained, or the "
                "path of a weight file."
            )
        record |= {"source": path.name, "licence": "unknown", "sha256": file_hash(path)}
    elif network.source is None:
        raise ValueError(
            f"model.weights is pretrained, but nobody publishes weights of {network.title}; set "
            "model.weights=random, or to the path of a file."
        )
    else:
        path, about = fetched(
            network.source,
            config,
            "model.weights=pretrained",
            "set model.weights=random for the untrained control, or to the path of a weight file",
        )
        record |= about
    tensors, inner = network.read(path), network.inner if isinstance(network, Shuffled) else network
    if weights == "pretrained" and config.weights.dinov2_source == "torchhub" and isinstance(inner, DinoV2):
        torch_hub.load_through_hub(inner, tensors, config.weights.root, str(path))
        record |= {"source": f"{network.source.url}, by torch.hub {torch_hub.REPOSITORY}:{torch_hub.COMMIT}"}
    else:
        network.load(tensors, str(path))
    renew(folder, record, network.network.state_dict())
