"""Results as the stage report publishes them, in a repository with experiments."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from src.experiments.result import EXPERIMENT_SCHEMA
from src.reproducible.files import write_json
from src.results.tables import write_rows

HASH, CODE = "a" * 64, "c" * 16


def publish(
    folder: Path,
    backbone: str,
    gain: float,
    noise: int = 0,
    recipe: str | None = None,
    code: str = CODE,
    trained: tuple[str, str] = ("procedural", "all"),
    category: str = "rooms",
    **protocol,
) -> None:
    """What the stage report leaves in a folder `reports`, for 8 scenes of 3 targets; trained: dataset and category."""
    recipe = recipe or backbone
    rng, shared = np.random.default_rng(noise), np.random.default_rng(99)
    rows = [
        {
            "episode": f"s{scene}",
            "scene": f"s{scene}",
            "category": category,
            "bin": "wide",
            "target": str(target),
            "method": "render",
            "alignment": alignment,
            "psnr_masked": 20 + shared.normal() + gain + 0.05 * rng.normal(),
            "ssim_masked": 0.5 + gain / 10,
        }
        for scene in range(8)
        for target in range(3)
        for alignment in ("raw", "aligned")
    ]
    write_rows(folder / "reports/records.csv", rows)
    write_json(folder / "reports/metrics.json", {"psnr_masked": 20 + gain})
    write_json(
        folder / "reports/experiment.json",
        {
            "schema": EXPERIMENT_SCHEMA,
            "recipe": recipe,
            "arm": f"{recipe} {trained}",
            "code": code,
            "versions": {"torch": "2.0"},
            "label": {"none": "MASt3R only (no backbone)"}.get(backbone, backbone),
            "detail": "",
            "benchmark_params": "this configuration",
            "backbone": {"name": backbone, "weights": "random"},
            "curves": ["train_loss"],
            "protocol": {
                "scenes": HASH,
                "dataset": "procedural",
                "training": dict(zip(("dataset", "category"), trained)),
                "seed": 0,
                "opt": {"steps": 300},
            }
            | protocol,
        },
    )
    (folder / "reports/plots").mkdir(exist_ok=True)
    (folder / "reports/plots/train_loss.csv").write_text(f"step,loss\n0,{gain}\n")


@pytest.fixture
def repository(tmp_path):
    """A committed baseline, two of its experiments, one of an older commit, and another backbone in the work tree."""

    def git(*words):
        words = ["git", "-C", tmp_path, *words]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def experiment(name, parent, *arguments, **protocol):
        publish(tmp_path, *arguments, **protocol)
        git("add", "-A")
        git("commit", "-qm", name)
        git("update-ref", f"refs/exps/{parent[:2]}/{parent[2:]}/{name}", "HEAD")
        git("reset", "-q", "--hard", parent)

    git("init", "-q", "-b", "main")
    git("config", "user.email", "a@example.org")
    git("config", "user.name", "A")
    git("commit", "-q", "--allow-empty", "-m", "start")
    experiment("old", git("rev-parse", "HEAD"), "vit", 9.0)
    publish(tmp_path, "none", 0.0)
    (tmp_path / "reports/benchmark.json").write_text('{"params": "of another configuration"}')
    git("add", "-A")
    git("commit", "-qm", "baseline")
    head = git("rev-parse", "HEAD")
    experiment("better", head, "clip", 0.5, noise=1)
    experiment("long", head, "clip", 0.7, noise=2, opt={"steps": 900})
    publish(tmp_path, "vit", 0.0, noise=3)
    return tmp_path


TIMING = {"median_ms": 50.0, "p10_ms": 45.0, "p90_ms": 61.0, "per_second": 20.0}

MEMORY = {"peak_bytes": 3 * 2**29, "before_bytes": 2**29, "what": "resident set"}

BENCHMARK = {
    "backbone": "DINOv2",
    "device": "cpu",
    "precision": "32-true",
    "warmup": 2,
    "repeats": 7,
    "params": "p",
    "parameters": {"encoder": 1200, "fusion": 0},
    "hardware": {"cpu": "Some CPU", "cpu_cores": 2, "threads": 2},
    "resolutions": {
        side: {
            "geometry_encoder": TIMING,
            "encode": TIMING | {"median_ms": 1000 / rate, "per_second": rate},
            "gaussians": 32768,
            "render_per_view": TIMING,
            "encode_flops": 2_500_000_000,
            "inference_memory": MEMORY,
            "training_step_memory": MEMORY,
        }
        for side, rate in (("128", 20.0), ("224", 5.0))
    },
}
