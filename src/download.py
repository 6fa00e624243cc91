"""Stage `download`: the raw dataset. Procedural scenes are rendered, CO3D is fetched or found where it lies, what the user
keeps in a folder is listed there.

    python -m src.download [key=value ...]

reads parameters only; writes data/raw: manifest.json and, per scene, scenes/<id>.safetensors (rendered) or
scenes/<id>.json (path, size and SHA-256 of every file that `prepare` will read)
"""

from functools import partial
from pathlib import Path

from src.config import Config
from src.datasets.captures import list_captures
from src.datasets.chunks import list_chunks
from src.datasets.co3d.download import fetch_co3d
from src.datasets.colmap import COLMAP
from src.datasets.processes import in_processes
from src.datasets.scannetpp import list_rooms
from src.datasets.transforms import TRANSFORMS
from src.parameters.datasets import Procedural
from src.procedural.scenes import generate
from src.reproducible.files import fresh_folder, write_json
from src.reproducible.seeds import fix_computation
from src.run import run
from src.scenes.choices import SCORED_SPLITS
from src.scenes.scene import write_scene

RAW = Path("data/raw")
FIRST_SEED = {"train": 0, "val": 100_000, "dev": 200_000, "test": 300_000}  # the bundled network's start at 900 000


def scenes_to_render(families: list[str], counts: dict[str, int]) -> list[dict]:
    """id, category, split and seed of every scene to render; counts: scenes per family and split, of the splits that are
    wanted.

    raises    ValueError when the splits' seeds would meet
    """
    if max(counts.values()) > (limit := FIRST_SEED["val"]):
        raise ValueError(
            f"datasets.procedural.source.scenes asks for {max(counts.values())} scenes per family; at "
            f"most {limit} keep the splits apart."
        )
    return [
        {"id": f"{family}__{seed:06d}", "category": family, "split": split, "seed": seed}
        for family in families
        for split, count in counts.items()
        for seed in range(FIRST_SEED[split], FIRST_SEED[split] + count)
    ]


def render_listed(folder: Path, views: int, resolution: tuple[int, int], samples: int, scene: dict) -> dict:
    """Worker: render one listed scene into `folder`, losslessly; the scene with its file and SHA-256."""
    frames = generate(scene["category"], scene["seed"], views, resolution, samples)
    file = f"scenes/{scene['id']}.safetensors"
    about = {
        "dataset": "procedural",
        "id": scene["id"],
        "category": scene["category"],
        "units": "metre",
        "license": "none",
        "source": {"seed": scene["seed"], "samples": samples},
    }
    return scene | {"file": file, "sha256": write_scene(folder / file, frames, about, lossless=True)}


def render_scenes(dataset: Procedural, folder: Path, workers: int, scored: str = SCORED_SPLITS[0]) -> dict:
    """Render the scenes to train on, to validate on and of the scored split, `workers` at a time, and list them; the
    result does not depend on `workers`. A run that makes a choice on `dev` has no test scene that it could look at."""
    source = dataset.source
    counts = {split: vars(source.scenes)[split] for split in ("train", "val", scored)}
    listed = scenes_to_render(source.families, counts)
    render = partial(render_listed, folder, source.views, tuple(dataset.resolution), source.samples)
    scenes = in_processes(render, listed, workers, "render scenes")
    return {"dataset": "procedural", "views": source.views, "scenes": scenes}


FETCH = {  # (datasets block, folder, workers) -> manifest
    "procedural": render_scenes,
    "co3d": fetch_co3d,
    "scannetpp": list_rooms,
    "transforms": partial(list_captures, TRANSFORMS),
    "colmap": partial(list_captures, COLMAP),
    "chunks": list_chunks,
}


def main(config: Config) -> None:
    fix_computation(config.threads)
    with fresh_folder(RAW) as folder:
        fetch = FETCH[config.data.dataset]
        if fetch is render_scenes:  # the others have one scored split
            fetch = partial(render_scenes, scored=config.eval.split)
        write_json(folder / "manifest.json", fetch(config.dataset, folder, config.threads))


if __name__ == "__main__":
    run(main, "download")
