"""Where the numbers of the page come from: configuration, data, weights with their licences, versions."""

from pathlib import Path

from src.config import Config
from src.experiments.publish import fusion_words
from src.experiments.result import ExperimentResult
from src.reproducible.files import read_json
from src.reproducible.hashes import params_hash
from src.reproducible.versions import git_revision

WEIGHTS = Path("data/weights")


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
    for use, records in (("LPIPS, scores", "lpips_eval/*"), ("LPIPS, training loss", "lpips_loss")):
        weights += [(use, read_json(path)) for path in sorted(WEIGHTS.glob(f"{records}/record.json"))]
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
            ("training scenes", protocol["training"]["category"]),
            ("visibility masks", config.eval.masks),
        ],
        "Data": [
            ("data set", config.data.dataset),
            ("licence", "; ".join(licences)),
            ("scenes", protocol["scenes"][:16]),
            ("scored split", protocol["eval.split"]),
            ("scored episodes", protocol["episodes"][:16]),
            ("resolution", protocol["resolution"]),
        ],
        "Weights and licences": [(use, weights_words(entry)) for use, entry in weights],
        "Versions": list(record["versions"].items()),
    }
