"""Stage `check`: params.yaml is valid and the backbone it names can be built, before anything runs. Prints nothing."""

from src.backbones import build_backbone
from src.config import Config
from src.run import run


def main(config: Config) -> None:
    """Loading was the check of the parameters; a backbone's name and layers are checked by building it, unweighted."""
    build_backbone(config.model, None)


if __name__ == "__main__":
    run(main, "check")
