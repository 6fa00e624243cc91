"""Score the trained model of the work tree on another dataset, and keep the result beside the experiments.

    python -m src.transfer NAME key=value ...

such as `python -m src.transfer procedural-on-co3d data.dataset=co3d`. reads data/model, data/weights, data/scenes (what it
was trained on) and params.yaml, in which only the data, `eval` and `threads` may be changed; runs the stages download,
prepare, extract, render and evaluate in scratch/transfer/NAME; writes reports/experiments/NAME. `python -m src.compare` then
has it in its table of trained on and scored on. Paths in key=value must be absolute.
"""

import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

from src.config import Config, load_config
from src.experiments.archive import ARCHIVE, check_name, keep_result
from src.experiments.protocol import trained_on
from src.experiments.publish import detailed_metrics, experiment_record, headline_metrics, weigh_scenes
from src.experiments.result import REPORTS, folder_reader, write_result
from src.parameters.rules import ConfigError, require
from src.reproducible.files import read_json
from src.results.evaluation import read_evaluation
from src.results.tables import select_rows
from src.run import Words, mistakes_explained, override

MODEL, EVAL = Path("data/model"), Path("data/eval")
TRAINED_WITH = ("seed", "model", "probe", "opt", "loss", "geometries", "weights")  # what the model was trained with
BORROWED = ("data/model", "data/weights", "data/bundled")  # of the work tree
CHAIN = (["download"], ["prepare"], ["extract", "geometry"], ["extract", "backbone"], ["render"], ["evaluate"])


def check_held(trained: Config, scored: Config) -> None:
    """raises ConfigError when an override changes what the model was trained with"""
    changed = [key for key in TRAINED_WITH if getattr(trained, key) != getattr(scored, key)]
    require(
        not changed,
        f"{', '.join(changed)} would differ from what data/model was trained with; change data, datasets, eval or threads "
        "alone, or train with dvc exp run.",
    )


def check_trained() -> None:
    """raises ConfigError when data/model is not what params.yaml and the code make"""
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "-q", "train"], capture_output=True)
    if status.returncode or not MODEL.exists():
        raise ConfigError("data/model is not what params.yaml and the code make; run dvc repro train.")


def fill_folder(folder: Path) -> None:
    """A folder in which stages find params.yaml, the weights and the model of the work tree, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    shutil.copy("params.yaml", folder)
    for name in BORROWED:
        (folder / name).symlink_to(Path(name).resolve())


def run_stages(folder: Path, overrides: list[str]) -> None:
    """Run the stages from data to scores in `folder`, with the code of the work tree; ends where one does."""
    environment = {"DVC_ROOT": os.getcwd()} | os.environ | {"PYTHONPATH": os.getcwd()}
    for stage, *words in CHAIN:
        print(f"transfer: {stage} {' '.join(words)}".rstrip(), flush=True)
        done = subprocess.run([sys.executable, "-m", f"src.{stage}", *words, *overrides], cwd=folder, env=environment)
        if done.returncode:
            sys.exit(done.returncode)  # the stage has said why


def publish_transfer(config: Config, training: dict) -> None:
    """Write reports/ of the current folder from data/eval."""
    summary, rows, clouds = read_evaluation(EVAL)
    summary = weigh_scenes(summary, rows, clouds)
    record = experiment_record(config, summary, training) | {"curves": []}
    details = detailed_metrics(summary, record["trainable_parameters"], record["fusion"])
    REPORTS.mkdir()
    write_result(REPORTS, record, headline_metrics(summary), details, select_rows(rows, method="render"), [])


def main(name: str, overrides: list[str]) -> None:
    with mistakes_explained():
        check_name(name)
        trained, scored = load_config(), load_config(overrides)
        check_held(trained, scored)
        check_trained()
        training = trained_on(trained, read_json(MODEL / "record.json")["train_category"])
        folder, archive = Path("scratch/transfer") / name, ARCHIVE.resolve()
        fill_folder(folder)
    run_stages(folder, overrides)
    with mistakes_explained(), chdir(folder):
        publish_transfer(scored, training)
        keep_result(archive, name, folder_reader(REPORTS))
    shutil.rmtree(folder)
    print(f"Written: {(ARCHIVE / name).as_posix()}")


if __name__ == "__main__":
    words = Words("transfer")
    words.add_argument("name", metavar="NAME")
    words.add_argument("overrides", nargs="+", type=override, metavar="key=value")
    asked = words.parse_args()
    main(asked.name, asked.overrides)
