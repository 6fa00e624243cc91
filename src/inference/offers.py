"""The trained models that can be chosen here, by name: the work tree's, the shipped one, and those of experiments.

An experiment is one of `dvc exp`, of whatever commit it grew from. Its files are read where the DVC cache has them; none is
fetched. Its parameters are those of its own commit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from src.backbones.controls import Truth
from src.config import Config, load_config
from src.experiments.dvc_cache import cached_files
from src.experiments.result import all_experiment_commits
from src.inference.trained_model import MODEL, NEEDED, LoadedModel, trained_model, work_tree_model
from src.parameters.rules import ConfigError
from src.reproducible.versions import git_output

WORK_TREE, SHIPPED_NAME = "work tree", "shipped"
DAMAGES = (ValueError, FileNotFoundError, KeyError, RuntimeError)  # the last two: records, weights of other versions
Load = Callable[[], LoadedModel]


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen.

    words       what it is made of, see `described`
    notice      a sentence where it is not the one of the work tree; else empty
    resolution  (W, H) in pixels, of the images that it takes
    load        reads it anew, so that a new training in the work tree is shown from the next prediction on
    """

    name: str
    words: str
    notice: str
    resolution: tuple[int, int]
    load: Load


def described(model: LoadedModel) -> str:
    """Backbone and the kind of its weights, geometry network, track, training. The label of random ones says untrained."""
    backbone, geometry = model.record["backbone"], model.record["geometry"]
    kind = ", pretrained" if backbone["weights"] == "pretrained" else ""
    track = "posed" if model.posed else "unposed"
    steps = model.record["steps"]
    return f"{backbone['label']}{kind}; on {geometry['label']}; {track} track; {steps} training steps"


def offer(name: str, load: Load) -> Offer:
    """Of a model that is loaded once, to see that it can be.

    raises what `load` does; ValueError for a control that asks for more than images
    """
    model = load()
    if isinstance(model.backbone, Truth) or model.backbone.true_points:
        raise ValueError(
            f"Its backbone, {model.backbone.title}, is a control that reads what two images by themselves have not; "
            "choose another model."
        )
    return Offer(name, described(model), model.notice, model.resolution, load)


def cached_model(config: Config, files: dict[str, Path]) -> LoadedModel:
    """The model in files of the DVC cache, by their path in the repository."""
    with tempfile.TemporaryDirectory() as folder:  # the cache names files by their content
        for name, path in files.items():
            place = Path(folder, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.absolute())
        return work_tree_model(config, Path(folder)).placed()


def experiment_model(root: Path, commit: str) -> Load:
    """How the model of an experiment's commit is loaded.

    raises FileNotFoundError, ValueError when the cache lacks a file of it, or this code does not take its parameters
    """
    folders = sorted({path.parent.as_posix() for path in NEEDED})
    files = cached_files(root, commit, *folders)
    if missing := [path.as_posix() for path in NEEDED if path.as_posix() not in files]:
        raise FileNotFoundError(
            f"The DVC cache here lacks {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}; run the "
            "experiment again, or dvc exp pull it where a remote has it."
        )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "params.yaml").write_text(git_output(root, "show", f"{commit}:params.yaml") or "", "utf8")
        try:
            return partial(cached_model, load_config(root=folder), files)
        except ConfigError as error:
            raise ValueError(f"It is of another version of this code; run the experiment again. {error}") from error


def offered_models(config: Config, shipped: bool = False) -> tuple[list[Offer], list[str]]:
    """The models that can be chosen, the one to begin with first, and a sentence on each that cannot be loaded.

    shipped  the shipped model alone
    raises   ValueError  when there is none at all
    """
    ways: dict[str, Callable[[], Load]] = {}  # by name, how to come to know how a model is loaded
    if not shipped and MODEL.exists():
        ways[WORK_TREE] = lambda: partial(trained_model, config)
    beside = shipped or bool(ways)  # else a notice says that it stands in for the work tree's
    ways[SHIPPED_NAME] = lambda: partial(trained_model, config, beside)
    for name, commit in [] if shipped else all_experiment_commits("."):
        ways[f"experiment {name}"] = partial(experiment_model, Path(), commit)
    offers, refusals = [], {}
    for name, way in ways.items():
        try:
            offers.append(offer(name, way()))
        except DAMAGES as error:
            words = error if isinstance(error, (ValueError, FileNotFoundError)) else f"{type(error).__name__}: {error}"
            refusals[name] = str(words).partition("\n")[0]
    if not offers:
        raise ValueError(" ".join(refusals.values()))
    return offers, [f"{name}: {words}" for name, words in refusals.items()]
