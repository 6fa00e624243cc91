"""The trained model that predicts from one's own images: the work tree's, or the one that comes with this repository.

The latter lies in data/bundled/splatt3r, on top of data/bundled/geometry.safetensors: record.json and trained.safetensors
as the stage train wrote them, and parameters.json, so that it does not depend on what params.yaml says now.
"""

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from src import backbones
from src.backbones.base import Backbone
from src.config import Config, Geometry, Model
from src.geometry.alignment import baseline_factor, camera_in_prediction
from src.inference.cameras import fitted_pinhole, second_camera
from src.parameters.rules import require
from src.reproducible.files import read_json, write_json
from src.reproducible.hashes import file_hash
from src.splatt3r import build
from src.splatt3r.build import PARAMETER_FILE, SHIPPED
from src.splatt3r.network import SplatOutput, Splatt3R
from src.splatt3r.posed import Cameras, PosedSplatt3R, unposed_points
from src.splatt3r.prediction import posed_views, splat

WEIGHTS, MODEL = Path("data/weights"), Path("data/model")
RECORD = "record.json"
NEEDED = (
    WEIGHTS / "geometry/model.safetensors",
    WEIGHTS / "backbone/record.json",
    MODEL / RECORD,
    MODEL / build.TRAINED,
)
RESTORE = f"git checkout -- {SHIPPED.as_posix()}"
Section = TypeVar("Section", Model, Geometry)


@dataclass(frozen=True)
class LoadedModel:
    """A trained network and its backbone, on one device.

    record        of its training
    resolution    (W, H) in pixels, at which it was trained
    feature_grid  as in params.yaml model.feature_grid
    notice        a sentence, where it is not the model of the work tree; else empty
    """

    network: Splatt3R
    backbone: Backbone
    record: dict
    resolution: tuple[int, int]
    feature_grid: str
    notice: str = ""

    @property
    def words(self) -> str:
        """What it is made of."""
        labels = (self.record[part]["label"] for part in ("geometry", "backbone"))
        return f"{', '.join(labels)}, {self.record['steps']} training steps"

    @property
    def posed(self) -> bool:
        return isinstance(self.network, PosedSplatt3R)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def placed(self) -> "LoadedModel":
        """On the GPU where torch sees one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return replace(self, network=self.network.to(device), backbone=self.backbone.to(device))

    def inputs(
        self, images: Tensor, depth: Tensor | None = None, K: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `splat` reads of a pair of images (2, 3, H, W) in [0, 1], computed here: a batch of one. Their true depth
        (2, H, W) and K (2, 3, 3) are for the positive control alone, which refuses images without them."""
        tokens, features = half(self.network.encode(images * 2 - 1)), None
        if self.backbone.channels:
            wanted = self.network.grid(images) if self.feature_grid == "aligned" else None
            known = depth is not None and K is not None
            maps = self.backbone.of_views(images, depth, K, wanted) if known else self.backbone(images, wanted)
            features = half(maps)[None]
        return images[None], tokens[None], features

    @torch.inference_mode()
    def predict(self, images: Tensor, cameras: tuple[Tensor, Tensor] | None = None) -> tuple[SplatOutput, str]:
        """Gaussians (a batch of one) of images (2, 3, H, W) in [0, 1], and in words what made them.

        cameras   K (2, 3, 3) and c2w (2, 4, 4), for a model of the posed track alone
        raises    ValueError  when cameras are given to a model that does not ask for them, or can not be estimated
        """
        read = self.inputs(images)
        if not isinstance(self.network, PosedSplatt3R):
            if cameras is not None:
                raise ValueError(
                    "The trained model is of the unposed track, which takes no cameras; leave --cameras out."
                )
            return splat(self.network, *read), self.words
        pair, _, features = read
        views = posed_views(self.network, *read)
        points = unposed_points(self.network, views, self.network.grid(images))[0]
        if cameras is None:
            found, told = estimated_cameras(points), "estimated"
        else:
            found, told = given_cameras(points, *(each.to(pair) for each in cameras)), "given"
        return self.network(views, pair, found, features)[0], f"{self.words}, cameras {told}"


def half(features: Tensor) -> Tensor:
    """Rounded and laid out in memory as the features are that the model was trained on."""
    return features.half().contiguous().float()


def given_cameras(points: Tensor, K: Tensor, c2w: Tensor) -> Cameras:
    """Of a pair whose K (2, 3, 3) and c2w (2, 4, 4), in any unit, are known: the distance between them is brought to the
    units of points (2, H, W, 3), predicted without cameras."""
    scale = baseline_factor(points[1], K[1], c2w)
    relative = camera_in_prediction(c2w[:1], c2w[None, 1:], scale[None])[:, 0]
    return Cameras(K[None], relative, scale[None])


def estimated_cameras(points: Tensor) -> Cameras:
    """One focal length for both views, and the second camera, as points (2, H, W, 3), predicted without cameras, have
    them."""
    first, second = points.cpu()
    K = fitted_pinhole(first)
    relative = torch.from_numpy(second_camera(second, K)).to(points)[None]
    return Cameras(torch.from_numpy(K).to(points).expand(1, 2, 3, 3), relative, points.new_ones(1))


def trained_model(config: Config, shipped: bool = False) -> LoadedModel:
    """The trained model of the work tree where there is one, else the shipped one; with `shipped` that one in any case.
    On the GPU where torch sees one.

    raises    FileNotFoundError, ValueError  when there is no trained model, or it is not whole, or not the one of
              params.yaml
    """
    if shipped:
        found = replace(shipped_model(config), notice="The model is the one that comes with this repository.")
    elif MODEL.exists():
        found = work_tree_model(config)
    elif (SHIPPED / PARAMETER_FILE).exists():
        notice = (
            f"The model is the one that comes with this repository, as there is no {MODEL.as_posix()} here; "
            "dvc repro train makes it."
        )
        found = replace(shipped_model(config), notice=notice)
    else:
        raise FileNotFoundError(
            f"There is no trained model here, {MODEL.as_posix()} and {SHIPPED.as_posix()} missing; run dvc repro train, "
            f"or {RESTORE}."
        )
    return found.placed()


def work_tree_model(config: Config, root: Path = Path()) -> LoadedModel:
    """The model of `root`/data, of a work tree or of files laid out as in one.

    raises FileNotFoundError, ValueError when there is no trained model, or it is not the one of params.yaml
    """
    if missing := [path.as_posix() for path in NEEDED if not (root / path).exists()]:
        raise FileNotFoundError(
            f"There is no trained model here, {', '.join(missing)} missing; run dvc repro train "
            "(or dvc pull train where a remote has it), or say --shipped for the one that comes with this repository."
        )
    record = read_json(root / MODEL / RECORD)
    backbone = backbones.load_backbone(config.model, root / WEIGHTS / "backbone")
    if record["feature_channels"] != backbone.channels:
        raise ValueError(
            f"{MODEL} was trained on features of {record['feature_channels']} channels, but params.yaml "
            f"asks for {backbone.title} with {backbone.channels}; run dvc repro train."
        )
    network, _ = build.load_model(config, root / WEIGHTS / "geometry", root / MODEL)
    width, height = config.dataset.resolution
    return LoadedModel(network, backbone, record, (width, height), config.model.feature_grid)


def ship_model(config: Config, folder: Path) -> None:
    """Write the trained model of the work tree, which params.yaml describes, into an empty folder.

    raises    FileNotFoundError  when there is none; ValueError when the repository does not hold all that it needs
    """
    record, geometry = work_tree_model(config).record, config.geometries[config.model.geometry]
    require(
        record["backbone"]["name"] == "none",
        f"{MODEL} was trained with {record['backbone']['label']}, but a shipped model has no backbone, whose weights "
        "would be shipped too; run dvc exp run -S model.backbone=none, then this again.",
    )
    require(
        record["geometry"]["source"] == geometry.file and Path(geometry.file).parent == SHIPPED.parent,
        f"{MODEL} stands on {record['geometry']['label']}, which is no file in {SHIPPED.parent.as_posix()}; ship a "
        "model with model.geometry=tiny.",
    )
    for name in (RECORD, build.TRAINED):
        shutil.copyfile(MODEL / name, folder / name)
    said = {
        "model": asdict(config.model),
        "geometry": asdict(geometry),
        "resolution": config.dataset.resolution,
        "sha256": {
            RECORD: file_hash(folder / RECORD),
            build.TRAINED: file_hash(folder / build.TRAINED),
            geometry.file: record["geometry"]["sha256"],
        },
    }
    write_json(folder / PARAMETER_FILE, said)
    shipped_model(config, folder)


def shipped_model(config: Config, folder: Path = SHIPPED) -> LoadedModel:
    """The model that comes with the repository; of `config` nothing counts but what no prediction depends on.

    raises    FileNotFoundError, ValueError  when a file of it is missing or damaged
    """
    if not (folder / PARAMETER_FILE).is_file():
        raise FileNotFoundError(f"The shipped model is not whole, {folder / PARAMETER_FILE} missing; run {RESTORE}.")
    try:
        said = read_json(folder / PARAMETER_FILE)
        model, geometry = typed(Model, said["model"]), typed(Geometry, said["geometry"])
        (width, height), digests = said["resolution"], said["sha256"]
    except (ValueError, KeyError, TypeError, OmegaConfBaseException) as error:
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"{folder / PARAMETER_FILE} is damaged or of another version of this code ({first}); run {RESTORE}."
        ) from error
    for name in (RECORD, build.TRAINED):
        check_whole(folder / name, digests[name], RESTORE)
    check_whole(Path(geometry.file), digests[geometry.file], f"git checkout -- {geometry.file}")
    own = replace(config, model=model, geometries={model.geometry: geometry})
    record = read_json(folder / RECORD)
    with tempfile.TemporaryDirectory() as weights:  # a folder as the stage weights makes it
        shutil.copyfile(geometry.file, Path(weights) / "model.safetensors")
        write_json(Path(weights) / RECORD, record["geometry"])
        network, _ = build.load_model(own, weights, folder)
    return LoadedModel(network, backbones.build_backbone(model, None), record, (width, height), model.feature_grid)


def typed(schema: type[Section], values: dict) -> Section:
    """raises OmegaConfBaseException, ValueError for a key that is unknown, missing or mistyped"""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))


def check_whole(path: Path, sha256: str, remedy: str) -> None:
    """raises FileNotFoundError, ValueError unless the file is there and is the one with this SHA-256"""
    if not path.is_file():
        raise FileNotFoundError(f"The shipped model is not whole, {path} missing; run {remedy}.")
    if file_hash(path) != sha256:
        raise ValueError(
            f"{path} is not the file that the shipped model was made with (it is damaged, or another); run {remedy}."
        )
