"""Pictures to look at: test targets chosen by rule; what went in, what was wanted and what came out, side by side."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.experiments.result import ExperimentResult
from src.page.strip import bytes_of, depth_panel, error_panel
from src.renders.episode_file import Rendered
from src.results.tables import Row, groups, select_rows
from src.scenes.scene import Scene, SceneRecord

RULES = ("first", "easiest", "median", "hardest")
JUDGE = {"method": "copy_nearest", "alignment": "raw"}  # all experiments share it: no network has a part in it
TRUTH = "target image"  # the panel of what was held out
MAX_FAMILIES = 6  # more are shown as one


@dataclass(frozen=True)
class Chosen:
    """One target to show. name: of its file, family_rule; row: its scores (method render, aligned)."""

    family: str
    rule: str
    row: Row

    @property
    def name(self) -> str:
        return f"{self.family}_{self.rule}"


@dataclass(frozen=True)
class SecondRenders:
    """The experiment shown beside this run. pictures: name of a chosen target -> its render (H, W, 3) uint8."""

    result: ExperimentResult
    pictures: dict[str, np.ndarray]


def choose(rows: list[Row]) -> list[Chosen]:
    """Per family of scenes the easiest, median and hardest target, by how well a copied context shows it, and the first
    by name: the same ones in every experiment on the same episodes."""
    easy = {(row["episode"], row["target"]): row["psnr_masked"] for row in select_rows(rows, **JUDGE)}
    scored = [row for row in select_rows(rows, method="render", alignment="aligned") if row["psnr_masked"] is not None]
    families = groups(scored, "category") if scored else []
    if len(families) > MAX_FAMILIES:
        members = {"all": scored}
    else:
        members = {family: select_rows(scored, category=family) for family in families}
    chosen = []
    for family, targets in members.items():
        by_name = sorted(targets, key=lambda row: (row["episode"], row["target"]))
        ordered = sorted(by_name, key=lambda row: easy[row["episode"], row["target"]])
        middle = ordered[(len(ordered) - 1) // 2]
        picks = {"first": by_name[0], "easiest": ordered[-1], "median": middle, "hardest": ordered[0]}
        chosen += [Chosen(family, rule, picks[rule]) for rule in RULES]
    return chosen


def panels(chosen: Chosen, index: dict[str, SceneRecord], scenes: Path, renders: Path) -> dict[str, np.ndarray]:
    """What there is to see of one target, each (H, W, 3) uint8."""
    rendered = Rendered.read(renders / f"{chosen.row['episode']}.safetensors")
    number = rendered.about["targets"].index(chosen.row["target"])
    scene = Scene.open(scenes / index[chosen.row["scene"]].file)
    first, second, target = (
        scene.view(name, rendered.resolution) for name in (*rendered.about["contexts"], chosen.row["target"])
    )
    render = rendered.picture("render", "aligned")[number]
    depth = rendered.picture("depth", "aligned")[number].numpy()
    mask = rendered.tensors["mask"][number].bool().numpy()
    return {
        "context 1": bytes_of(first.image),
        "context 2": bytes_of(second.image),
        TRUTH: bytes_of(target.image),
        "render": bytes_of(render),
        "error": error_panel(render, target.image, mask),
        "depth": depth_panel(depth, target.depth.numpy()),
    }


def other_render(chosen: Chosen, path: Path) -> np.ndarray | None:
    """The same target (H, W, 3) uint8 in another experiment's file of data/renders; None where it was not
    rendered."""
    rendered = Rendered.read(path)
    if chosen.row["target"] not in rendered.about["targets"]:
        return None
    return bytes_of(rendered.picture("render", "aligned")[rendered.about["targets"].index(chosen.row["target"])])


def second_renders(
    second: tuple[ExperimentResult, dict[str, Path]] | None, targets: list[Chosen]
) -> SecondRenders | None:
    """What another experiment rendered of the chosen targets; second: it, and its files of data/renders by name."""
    if second is None:
        return None
    result, files = second
    renders = {
        chosen.name: other_render(chosen, files[file])
        for chosen in targets
        if (file := f"{chosen.row['episode']}.safetensors") in files
    }
    return SecondRenders(result, {name: picture for name, picture in renders.items() if picture is not None})
