"""What the page says of where its numbers come from, and the scenes and renders it shows of a second experiment."""

from pathlib import Path

from src.config import Config
from src.experiments.publish import fusion_words
from src.experiments.result import ExperimentResult
from src.page.page import Other
from src.page.pictures import Chosen, other_render
from src.page.verdict import BASELINE_NAMES
from src.page.viewer import BASELINE_ENDING, ViewerScene, chosen_episodes, viewer_scene
from src.reproducible.files import read_json
from src.reproducible.hashes import params_hash
from src.reproducible.versions import git_revision
from src.scenes.scene import SceneRecord

SCENES, RENDERS, WEIGHTS = Path("data/scenes"), Path("data/renders"), Path("data/weights")


def others_renders(arm: tuple[ExperimentResult, dict[str, Path]] | None, pictures: list[Chosen]) -> Other | None:
    """What the second arm rendered of the chosen targets."""
    if arm is None:
        return None
    shown = {
        chosen.name: other_render(chosen, arm[1][file])
        for chosen in pictures
        if (file := f"{chosen.row['episode']}.safetensors") in arm[1]
    }
    return Other(arm[0], {name: picture for name, picture in shown.items() if picture is not None})


def walks(
    current: ExperimentResult, arm: tuple[ExperimentResult, dict[str, Path]] | None, index: dict[str, SceneRecord]
) -> list[ViewerScene]:
    """The exported scenes to look around in: this run beside the second arm, or else beside the splatted points."""
    found = []
    for episode in chosen_episodes(RENDERS):
        arms = {f"{current.name}: {current.label}": RENDERS / f"{episode}.ply"}
        if arm and f"{episode}.ply" in arm[1]:
            arms[f"{arm[0].name}: {arm[0].label}"] = arm[1][f"{episode}.ply"]
        else:
            arms[f"floor: {BASELINE_NAMES['points_splat']}"] = RENDERS / f"{episode}{BASELINE_ENDING}"
        found.append(viewer_scene(episode, RENDERS, SCENES, index, arms))
    return found


def weights_words(record: dict) -> str:
    """What some weights are, whose, and from where."""
    digest = f", sha256 {record['sha256'][:16]}" if record.get("sha256") else ""
    return (
        f"{record['label']}: {record['weights']} weights, licence {record['licence']}, source {record['source']}"
        f"{digest}"
    )


def provenance(
    config: Config, record: dict, licences: list[str], others: list[ExperimentResult]
) -> dict[str, list[tuple[str, str]]]:
    """Headings -> names and values, for the page alone: the revision is not known to reproducible files; licences: of
    the scenes; others: runs shown beside this one, whose weights are listed too."""
    protocol = record["protocol"]
    weights = [("geometry", record["geometry"]), ("backbone", record["backbone"])]
    for use, folder in (("LPIPS, scores", "lpips_eval"), ("LPIPS, training loss", "lpips_loss")):
        if (path := WEIGHTS / folder / "record.json").exists():
            weights.append((use, read_json(path)))
    used = {entry["label"] for _, entry in weights}
    for each in others:
        for use in ("geometry", "backbone"):
            if (entry := each.about[use])["label"] not in used:
                used.add(entry["label"])
                weights.append((f"{use} of {each.name}", entry))
    return {
        "This run": [
            ("revision", git_revision() or "not in a Git repository"),
            ("parameters", record["params"]),
            ("protocol", params_hash(protocol)),
            ("seed", str(config.seed)),
            ("optimiser steps", str(config.opt.steps)),
            ("trainable parameters", f"{record['trainable_parameters']:,}"),
            *fusion_words(record["fusion"]),
            ("training scenes", protocol["train_category"]),
            ("visibility masks", config.eval.masks),
        ],
        "Data": [
            ("data set", config.data.dataset),
            ("licence", "; ".join(licences)),
            ("scenes", protocol["scenes"][:16]),
            ("test episodes", protocol["episodes"][:16]),
            ("resolution", protocol["resolution"]),
        ],
        "Weights and licences": [(use, weights_words(entry)) for use, entry in weights],
        "Versions": list(record["versions"].items()),
    }
