"""DINOv2 by torch.hub: Meta's own network takes the weight file in, and its features must be the ones computed here.

torch.hub RUNS THE PYTHON CODE of the repository it loads. It happens only with weights.dinov2_source=torchhub, is
announced, and the code is that of one commit: fetched from GitHub into torch.hub's folder (TORCH_HOME), or found there,
or in `weights.root`, under the name FOLDER. The weights themselves come as for every other
network, see src/fetching/fetch.py.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from src.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from src.backbones.dinov2 import DinoV2
from src.fetching.fetch import FetchError, offline
from src.pretrained.state_dicts import load_strictly

REPOSITORY, COMMIT = "facebookresearch/dinov2", "e1277af2ba9496fbadf7aec6eba56e8d882d1e35"
HUB_FOLDER = f"{REPOSITORY.replace('/', '_')}_{COMMIT}"  # where torch.hub keeps it
FEATURE_TOLERANCE = 1e-3  # of the largest feature; float32, whatever attention kernel the repository's code chooses


def meta_network(model: str, root: str | None) -> nn.Module:
    """Meta's own network `model` (dinov2_vits14, ...), untrained.

    root    weights.root: where it is given nothing is fetched
    raises  FetchError  when the repository cannot be had, or its code does not run
    """
    folder = Path(root or torch.hub.get_dir()) / HUB_FOLDER
    remedy = f"place the repository at {folder}, or set weights.dinov2_source=file"
    if not folder.is_dir() and (root or offline()):
        cause = "is not in weights.root" if root else "may not be fetched, as HF_HUB_OFFLINE is set"
        raise FetchError(
            f"weights.dinov2_source=torchhub needs {REPOSITORY} at commit {COMMIT}, which {cause}; {remedy}."
        )
    print(f"weights: torch.hub runs the code of {REPOSITORY} at commit {COMMIT}", flush=True)
    try:
        if folder.is_dir():
            return torch.hub.load(str(folder), model, source="local", verbose=False, pretrained=False)
        return torch.hub.load(
            f"{REPOSITORY}:{COMMIT}", model, trust_repo=True, skip_validation=True, verbose=False, pretrained=False
        )
    except (OSError, ImportError, RuntimeError, TypeError) as error:
        raise FetchError(f"torch.hub cannot load {model} of {REPOSITORY} ({error}); {remedy}.") from error


@torch.no_grad()
def difference(theirs: nn.Module, ours: DinoV2) -> float:
    """Largest difference of patch tokens after the last block, as a share of the largest, for one image of noise at
    224 px, where positions are resampled."""
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = theirs.eval().forward_features((image - mean) / std)["x_norm_patchtokens"]
    found = ours(image).flatten(2).mT
    return ((found - expected).abs().max() / expected.abs().max()).item()


def load_through_hub(ours: DinoV2, state: dict[str, Tensor], root: str | None, origin: str) -> None:
    """Load `state`, in Meta's layout, into Meta's network, and that network's tensors into `ours`; both strictly.

    ours    with the last block alone, so that features can be compared
    origin  names the file in messages
    raises  FetchError, see `meta_network`; CheckpointError when the file does not fit; ValueError when features differ
    """
    theirs = meta_network(ours.name, root)
    load_strictly(theirs, state, f"{origin} does not fit the network that torch.hub built")
    ours.load(theirs.state_dict(), f"torch.hub's {ours.name}")
    if not (found := difference(theirs, ours)) <= FEATURE_TOLERANCE:
        raise ValueError(
            f"Features of torch.hub's {ours.name} differ from ours by {found:.1e} of the largest one, "
            f"more than {FEATURE_TOLERANCE}; the code at {HUB_FOLDER} is not the published one, so fetch it again, or "
            "set weights.dinov2_source=file."
        )
