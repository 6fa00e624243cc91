"""Stage `check`: params.yaml is valid and the backbone it names can be built, before anything runs.

    python -m src.check [key=value ...]

Prints nothing where all is well, and a line on stderr about each fusion key that was changed without effect.
"""

import sys

import yaml

from src.backbones.registry import FEATURELESS, refuse_backbone
from src.config import Config
from src.parameters.rules import require
from src.reproducible.versions import git_output
from src.run import run

FUSION = ("fusion_site", "fusion_hooks", "fusion_mode", "identity_init", "fusion_parameters", "freeze_fusion")
TRUNK_BACKBONES = {"vgg16": "vgg", "alexnet": "alex"}  # model.backbone -> the trunk of LPIPS that it is


def without_effect(config: Config) -> list[str]:
    """Fusion keys that differ from the last commit's, although this backbone has no features to fuse."""
    if config.model.backbone not in FEATURELESS or (text := git_output(".", "show", "HEAD:params.yaml")) is None:
        return []
    before = (yaml.safe_load(text) or {}).get("model", {})
    return [key for key in FUSION if key in before and getattr(config.model, key) != before[key]]


def check_trunks(config: Config) -> None:
    """raises ConfigError when a network judges what it was trained on as a loss, or what is fused of itself"""
    headline, loss, backbone = config.eval.lpips[:1], config.loss.lpips_network, config.model.backbone
    trained = [loss] if config.loss.lpips_loss_weight else []
    require(
        not trained or trained != headline or config.eval.lpips_as_trained,
        f"loss.lpips_network is {loss}, and so is the headline of eval.lpips, which would measure what was trained; name "
        "another trunk in one of them, train without it by loss.lpips_loss_weight=0, or set eval.lpips_as_trained=true "
        "where that is meant, as in published results.",
    )
    own = TRUNK_BACKBONES.get(backbone.removeprefix("timm:").partition(".")[0])
    other = next((trunk for trunk in TRUNK_BACKBONES.values() if trunk != own), None)
    advice = {"eval.lpips": f"eval.lpips={other}", "loss.lpips_network": "loss.lpips_loss_weight=0"}
    for key, named in (("eval.lpips", config.eval.lpips), ("loss.lpips_network", trained)):
        require(
            own not in named,
            f"model.backbone is {backbone}, and {key} names the same network, {own}, which may not judge itself; set "
            f"{advice[key]}.",
        )


def main(config: Config) -> None:
    """Loading was the check of each parameter."""
    require(
        config.eval.split == "test" or config.data.dataset == "procedural",
        f"eval.split is {config.eval.split}, but data.dataset={config.data.dataset} sets no scenes apart for choices; set "
        "eval.split to test.",
    )
    check_trunks(config)
    refuse_backbone(config.model)
    for key in without_effect(config):
        print(
            f"note: model.{key}={getattr(config.model, key)} has no effect, because model.backbone="
            f"{config.model.backbone} has no features to fuse.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run(main, "check")
