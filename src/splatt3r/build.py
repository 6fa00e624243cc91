"""Build the model an experiment describes; write and read the part of it that training changed."""

import math
from pathlib import Path

from safetensors.torch import load_file, save_file

from src.config import Config
from src.mast3r.network import Mast3r
from src.mast3r.weight_file import load_geometry, read_checkpoint
from src.reproducible.files import read_json, whole_file, write_json
from src.reproducible.hashes import file_hash
from src.reproducible.seeds import torch_generator
from src.splatt3r.fusion import FusionConfig
from src.splatt3r.gaussian_head import Limits
from src.splatt3r.network import Splatt3R, load_trained, trained_state_dict
from src.splatt3r.posed import PosedSplatt3R

SHIPPED = Path("data/bundled/splatt3r")  # the model that comes with this repository, see src/inference/trained_model.py
TRAINED, PARAMETER_FILE = "trained.safetensors", "parameters.json"


def build_model(config: Config, geometry: str | Path, feature_channels: int, train_points: bool = False) -> Splatt3R:
    """The geometry network of folder `geometry`, drawn Gaussian heads, see `start_heads`, and, where the backbone has
    channels, a fresh fusion adapter; frozen as model.strategy says. `train_points` unfreezes the point heads too, for a
    loss on the points."""
    checkpoint = read_checkpoint(Path(geometry) / "model.safetensors")
    check_trained_heads(config, Path(geometry))
    model, start = config.model, config.geometries[config.model.geometry]
    fusion = None
    if feature_channels:
        fusion = FusionConfig(
            channels=feature_channels,
            mode=model.fusion_mode,
            site=model.site,
            hooks=None if model.fusion_hooks is None else tuple(model.fusion_hooks),
            identity_init=model.identity_init,
            parameters=model.fusion_parameters,
        )
    network = {"unposed": Splatt3R, "posed": PosedSplatt3R}[model.cameras](
        checkpoint.config,
        sh_degree=model.sh_degree,
        use_offsets=model.use_offsets,
        fusion=fusion,
        generator=torch_generator(config.seed, "head"),
        initial_scale=start.initial_scale,
        initial_opacity=start.initial_opacity,
        limits=Limits(start.max_scale or math.inf, start.max_offset or math.inf),
    )
    network.load_geometry(checkpoint.state_dict)
    network.apply_strategy(
        model.strategy,
        freeze_encoder=model.freeze_encoder,
        freeze_decoder=model.freeze_decoder,
        freeze_fusion=model.freeze_fusion,
        freeze_gaussian_head=model.freeze_gaussian_head,
        train_points=train_points,
    )
    return network.eval()


def start_heads(network: Splatt3R, config: Config, geometry: str | Path) -> str:
    """Let the Gaussian heads of a network just built start as geometries.<name>.initial_head says. Where they start
    depends on the seed and the geometry network of folder `geometry` alone, never on the backbone.

    returns   "drawn", "points", "loaded" (they came with the geometry network), or the SHA-256 of the trained head's file
    raises    FileNotFoundError, ValueError  when the shipped model, whose head is asked for, is missing or does not fit
    """
    way = config.geometries[config.model.geometry].initial_head
    if network.head_loaded:
        return "loaded"
    if way == "trained" and isinstance(network, PosedSplatt3R):
        return start_from_shipped(network, config, read_json(Path(geometry) / "record.json")["sha256"])
    if way == "drawn":
        return "drawn"
    network.start_from_points()
    return "points"


def start_from_shipped(network: PosedSplatt3R, config: Config, geometry: str) -> str:
    """Take the shipped model's Gaussian head; geometry: SHA-256 of the network that it must have been trained on."""
    remedy = f"set geometries.{config.model.geometry}.initial_head=points"
    if not (SHIPPED / PARAMETER_FILE).is_file() or not (SHIPPED / TRAINED).is_file():
        raise FileNotFoundError(
            f"geometries.{config.model.geometry}.initial_head is trained, but {SHIPPED.as_posix()} is not whole; run git "
            f"checkout -- {SHIPPED.as_posix()}, or {remedy}."
        )
    said, found = read_json(SHIPPED / PARAMETER_FILE), file_hash(SHIPPED / TRAINED)
    differences = [
        f"{what} {wanted}, not {own}"
        for what, wanted, own in (
            ("model.sh_degree", said["model"]["sh_degree"], config.model.sh_degree),
            ("model.use_offsets", said["model"]["use_offsets"], config.model.use_offsets),
            ("the geometry network", said["sha256"][said["geometry"]["file"]][:8], geometry[:8]),
            ("a file of SHA-256", said["sha256"][TRAINED][:8], found[:8]),
        )
        if wanted != own
    ]
    if differences:
        raise ValueError(f"The trained head in {SHIPPED.as_posix()} stands on {'; '.join(differences)}; {remedy}.")
    network.load_gaussian_head(load_file(SHIPPED / TRAINED))
    return found


def check_trained_heads(config: Config, geometry: Path) -> None:
    """raises ValueError unless Gaussian heads that came with the geometry network are used as they were trained"""
    record = read_json(geometry / "record.json")
    for key in ("sh_degree", "use_offsets"):
        found = getattr(config.model, key)
        if key in record and record[key] != found:
            raise ValueError(
                f"model.{key} is {found}, but the Gaussian heads of geometry {config.model.geometry} were "
                f"trained with {record[key]}; set model.{key}={str(record[key]).lower()}, or start from "
                "weights without Gaussian heads, such as model.geometry=mast3r."
            )


def scale_reference(network: Splatt3R, geometry: str | Path) -> Mast3r | None:
    """The frozen geometry network of folder `geometry`, from which scales are taken so that they are the same for every
    backbone; None where the model's own points cannot differ from its."""
    at_encoder = network.fusion_config is not None and network.fusion_config.site == "encoder"
    if not at_encoder and not network.trained_groups & {"encoder", "decoder", "point_head"}:
        return None
    return load_geometry(Path(geometry))


def save_trained(network: Splatt3R, folder: str | Path, record: dict) -> None:
    """Tensors that training may have changed, and a record of what they belong to."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / TRAINED) as partial:
        save_file(trained_state_dict(network), partial)
    write_json(folder / "record.json", record)


def load_model(config: Config, geometry: str | Path, trained: str | Path) -> tuple[Splatt3R, dict]:
    """The trained model of folder `trained` on the geometry network of folder `geometry`, and its record."""
    record = read_json(Path(trained) / "record.json")
    network = build_model(config, geometry, record["feature_channels"], record["train_points"])
    load_trained(network, load_file(Path(trained) / TRAINED))
    return network, record
