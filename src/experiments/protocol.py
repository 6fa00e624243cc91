"""What two results must share for their scores to be compared, as reports/experiment.json records it."""

import ast
from pathlib import Path

import yaml

from src.config import Config
from src.episodes.episodes import file_of
from src.reproducible.hashes import file_hash, params_hash
from src.scenes.scene import SceneRecord, read_index

SCENES = Path("data/scenes")
CODE_ROOT = Path(__file__).parents[2]  # of the code that runs
SCORING_STAGES = (
    "extract_geometry",
    "extract_backbone",
    "probe",
    "train",
    "render",
    "evaluate",
)  # from scenes to scores
# keys that may differ between runs whose scores are compared: the variable itself, and what cannot change a score
FREE = {
    "model": (
        "backbone",
        "dinov2_model",
        "dinov2_dim",
        "weights",
        "backbone_layers",
        "feature_grid",
        "fusion_site",
        "fusion_hooks",
        "fusion_mode",
        "identity_init",
        "fusion_parameters",
        "freeze_dinov2",
        "freeze_fusion",
    ),
    "opt": ("log_every", "val_every", "gradient_checkpointing"),
}


def scenes_hash(records: list[SceneRecord], split: str) -> str:
    """16 hex digits that name the scenes of a split and their files' contents."""
    return params_hash(*(record for record in records if record.split == split))


def trained_on(config: Config, category: str) -> dict:
    """What a model of this configuration is trained on; category: the one family of scenes, or "all"."""
    episodes = {key: value for key, value in vars(config.dataset.episodes).items() if key != "per_bin"}
    return {
        "dataset": config.data.dataset,
        "scenes": scenes_hash(read_index(SCENES), "train"),
        "category": category,
        "resolution": "x".join(map(str, config.dataset.resolution)),
        "episodes": episodes,
    }


def scored_as(config: Config, resolution: list[int] | tuple[int, ...]) -> dict:
    """What any two results must share for their scores to be compared, whoever rendered the pictures."""
    return {
        "scenes": scenes_hash(read_index(SCENES), config.eval.split),
        "episodes": file_hash(file_of(SCENES, config.eval.split)),
        "resolution": "x".join(map(str, resolution)),
        "eval.split": config.eval.split,
        "eval.masks": config.eval.masks,
        "eval.lpips": "+".join(config.eval.lpips) or "none",
    }


def held_still(config: Config, summary: dict, record: dict, training: dict) -> dict:
    """What two runs must share for their scores to be compared; hashes stand for files. record: data/model/record.json.
    training: of `trained_on`, where a model was trained on other scenes it may stand beside them, without a verdict."""
    sections, geometry = {}, record["geometry"]
    for name in ("model", "opt", "loss"):
        values = vars(getattr(config, name))
        sections[name] = {key: value for key, value in values.items() if key not in FREE.get(name, ())}
    untrained = vars(config.geometries[config.model.geometry])  # how the heads start, and what they may do
    sections["geometries"] = {key: value for key, value in untrained.items() if key != "file"}
    return (
        sections
        | scored_as(config, summary["resolution"])
        | {
            "training": training,
            "dataset": config.data.dataset,
            "geometry": geometry["sha256"] or geometry["label"],
            "initial_head": record["initial_head"],
            "seed": config.seed,
            "data.batch_size": config.data.batch_size,
        }
    )


def without_words(source: str) -> str:
    """What a Python file does: its syntax tree without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)


def scoring_code(root: Path = CODE_ROOT) -> str:
    """16 hex digits that name the code between prepared scenes and scores: the rooms that these stages depend on.

    What made the scenes is named by their content, so its code is not asked about.
    """
    stages = yaml.safe_load((root / "dvc.yaml").read_text("utf8"))["stages"]
    rooms = {dep for stage in SCORING_STAGES for dep in stages[stage]["deps"] if dep.startswith("src/")}
    files = {path for room in rooms for path in [root / room, *(root / room).rglob("*")] if path.suffix == ".py"}
    named = sorted((path.relative_to(root).as_posix(), path) for path in files)
    return params_hash({name: without_words(path.read_text("utf8")) for name, path in named})
