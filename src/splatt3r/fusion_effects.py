"""What trained adapters do to the tokens, measured on samples."""

from collections.abc import Iterable

import torch

from src.splatt3r.network import Splatt3R
from src.splatt3r.prediction import predict
from src.splatt3r.samples import Sample


@torch.no_grad()
def fusion_effects(network: Splatt3R, batches: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Site of each adapter -> `Adapter.effect`, the mean over batches of samples and their two contexts;
    empty without adapters."""
    if network.fusion_config is None:
        return {}
    device = next(network.parameters()).device
    seen = {site: [] for site in network.fusion}
    hooks = [
        adapter.register_forward_pre_hook(lambda module, maps, found=seen[site]: found.append(module.effect(*maps)))
        for site, adapter in network.fusion.items()
    ]
    for batch in batches:
        predict(network, batch.to(device))
    for hook in hooks:
        hook.remove()
    return {
        site: {name: sum(each[name] for each in found) / len(found) for name in found[0]}
        for site, found in seen.items()
    }
