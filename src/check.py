"""Stage `check`: params.yaml is valid and the backbone it names can be built, before anything runs.

    python -m src.check [key=value ...]

Prints nothing where all is well, and a line on stderr about each fusion key that was changed without effect.
"""

import sys

import yaml

from src.backbones.registry import FEATURELESS, refuse_backbone
from src.config import Config
from src.reproducible.versions import git_output
from src.run import run

FUSION = ("fusion_site", "fusion_hooks", "fusion_mode", "identity_init", "fusion_parameters", "freeze_fusion")


def without_effect(config: Config) -> list[str]:
    """Fusion keys that differ from the last commit's, although this backbone has no features to fuse."""
    if config.model.backbone not in FEATURELESS or (text := git_output(".", "show", "HEAD:params.yaml")) is None:
        return []
    before = (yaml.safe_load(text) or {}).get("model", {})
    return [key for key in FUSION if key in before and getattr(config.model, key) != before[key]]


def main(config: Config) -> None:
    """Loading was the check of the parameters."""
    refuse_backbone(config.model)
    for key in without_effect(config):
        print(
            f"note: model.{key}={getattr(config.model, key)} has no effect, because model.backbone="
            f"{config.model.backbone} has no features to fuse.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run(main, "check")
