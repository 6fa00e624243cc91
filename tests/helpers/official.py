"""Files of the official layouts."""

import torch
from omegaconf import OmegaConf

from src.splatt3r.network import Splatt3R


def seeded(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def splatt3r_content(network: Splatt3R, **settings) -> dict:
    state = {f"encoder.{name}": value for name, value in network.state_dict().items()}
    slices = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
    convolutions = [
        f"net.slice{k}.{layer}.{kind}" for k in slices for layer in slices[k] for kind in ("weight", "bias")
    ]
    linear = [f"{name}.model.1.weight" for k in range(5) for name in (f"lin{k}", f"lins.{k}")]
    trained_with = (*convolutions, *linear, "scaling_layer.shift", "scaling_layer.scale")
    assert len(trained_with) == 38
    state |= {f"lpips_criterion.{name}": torch.zeros(2) for name in trained_with}
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=1e-5)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [10], 0.1)
    optimiser.param_groups[0]["params"][0].grad = torch.ones(2)
    optimiser.step()
    config = {"use_offsets": True, "opt": {"lr": 1e-5, "betas": [0.9, 0.999]}, "gpus": [0, 1], "name": None, **settings}
    return {
        "state_dict": state,
        "hyper_parameters": {"config": OmegaConf.create(config)},
        "epoch": 19,
        "global_step": 1200,
        "pytorch-lightning_version": "2.2",
        "loops": {"fit_loop": {"state": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.ones(()), "best_k_models": {}}},
        "optimizer_states": [optimiser.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "hparams_name": "config",
    }
