"""The typed form of `params.yaml`: values live there, types and rules live here.

What a backbone may be called is the registry's to say (src/backbones), which the stage `check` asks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.geometry.choices import MASKS
from src.parameters.datasets import Dataset, Datasets
from src.parameters.rules import ConfigError, require, require_choice, require_positive
from src.pretrained.choices import DINOV2_WIDTHS, LPIPS_TRUNKS
from src.scenes.choices import SCORED_SPLITS
from src.scenes.crop import PATCH
from src.splatt3r.choices import CAMERAS, FUSION_MODES, FUSION_SITES, OPTIMIZERS, PRECISIONS, SH_DEGREES, STRATEGIES

WITHOUT_METRES = ("co3d", "transforms", "colmap", "chunks")  # datasets whose scenes have a scale of their own


@dataclass
class Data:
    dataset: str = MISSING
    crop: str = MISSING
    batch_size: int = MISSING
    num_workers: int = MISSING

    def __post_init__(self):
        require_choice("data.crop", self.crop, ("central", "splatt3r"))
        require_positive("data.batch_size", self.batch_size)
        require(self.num_workers >= 0, f"data.num_workers is {self.num_workers}; it must not be negative.")


@dataclass
class Geometry:
    file: str = MISSING
    initial_head: str = MISSING
    initial_scale: float = MISSING
    initial_opacity: float = MISSING
    max_scale: float | None = MISSING
    max_offset: float | None = MISSING

    def __post_init__(self):
        require_choice("geometries.<name>.initial_head", self.initial_head, ("drawn", "points", "trained"))
        for key in ("initial_scale", "max_scale", "max_offset"):
            if (value := getattr(self, key)) is not None:
                require_positive(f"geometries.<name>.{key}", value)
        require(
            self.max_scale is None or self.initial_scale < self.max_scale,
            f"geometries.<name>.initial_scale is {self.initial_scale}; it must be below max_scale {self.max_scale}.",
        )
        require(
            0 < self.initial_opacity < 1,
            f"geometries.<name>.initial_opacity is {self.initial_opacity}; it must lie strictly between 0 and 1.",
        )
        require(
            not self.file.rpartition("/")[2].startswith("CroCo"),
            f"geometries.<name>.file is {self.file}, but CroCo predicts no points, so nothing can be built on it; "
            "name a MASt3R, DUSt3R or Splatt3R file, which all started from it.",
        )


@dataclass
class Weights:
    root: str | None = MISSING
    mirror: str | None = MISSING
    dinov2_source: str = MISSING

    def __post_init__(self):
        require_choice("weights.dinov2_source", self.dinov2_source, ("file", "torchhub"))
        require(
            self.mirror is None or self.mirror.startswith(("http://", "https://")),
            f"weights.mirror is {self.mirror}, which is no web address; begin it with http:// or https://, or name "
            "a folder of files in weights.root instead.",
        )


@dataclass
class Model:
    geometry: str = MISSING
    backbone: str = MISSING
    dinov2_model: str = MISSING
    dinov2_dim: int | None = MISSING
    weights: str = MISSING
    backbone_layers: list[int | float] | None = MISSING
    feature_grid: str = MISSING
    cameras: str = MISSING
    fusion_site: str | None = MISSING
    fusion_hooks: list[int] | None = MISSING
    fusion_mode: str = MISSING
    identity_init: bool = MISSING
    fusion_parameters: int | None = MISSING
    strategy: str = MISSING
    freeze_encoder: bool | None = MISSING
    freeze_decoder: bool | None = MISSING
    freeze_dinov2: bool | None = MISSING
    freeze_fusion: bool | None = MISSING
    freeze_gaussian_head: bool = MISSING
    use_offsets: bool = MISSING
    sh_degree: int = MISSING

    def __post_init__(self):
        require_choice("model.dinov2_model", self.dinov2_model, tuple(DINOV2_WIDTHS))
        width = DINOV2_WIDTHS[self.dinov2_model]
        require(
            self.dinov2_dim in (None, width),
            f"model.dinov2_dim is {self.dinov2_dim} but {self.dinov2_model} is {width} wide; set it to {width} or "
            "leave it empty.",
        )
        require_choice("model.feature_grid", self.feature_grid, ("native", "aligned"))
        require_choice("model.cameras", self.cameras, CAMERAS)
        require_choice("model.fusion_site", self.site, FUSION_SITES)
        require(
            self.site != "depth" or self.cameras == "posed",
            "model.fusion_site is depth, but a readout of depth needs the contexts' cameras; set model.cameras=posed, or "
            "model.fusion_site=head.",
        )
        if self.fusion_mode == "addition":
            self.fusion_mode = "add"
        require_choice("model.fusion_mode", self.fusion_mode, FUSION_MODES)
        require(
            self.fusion_parameters is None or self.fusion_parameters > 0,
            f"model.fusion_parameters is {self.fusion_parameters}; it must be greater than 0, or empty.",
        )
        require_choice("model.strategy", self.strategy, tuple(STRATEGIES))
        require_choice("model.sh_degree", self.sh_degree, SH_DEGREES)
        require(
            self.site != "depth" or (self.fusion_mode == "concat" and self.fusion_parameters is None),
            f"model.fusion_mode is {self.fusion_mode} and model.fusion_parameters {self.fusion_parameters or 'empty'}, but "
            "at site depth features are concatenated for a readout in closed form; set model.fusion_site=head, or leave "
            "them at concat and empty.",
        )
        require(
            self.fusion_hooks is None or self.site == "head",
            f"model.fusion_hooks belongs to fusion_site head; leave it empty for site {self.site}.",
        )
        require(
            self.freeze_dinov2 is not False,
            "model.freeze_dinov2 is false, but backbone features are computed once and cached, which needs a frozen "
            "backbone; leave it empty or set it to true. One that was trained elsewhere is measured by naming its "
            "file in model.weights.",
        )

    @property
    def site(self) -> str:
        """model.fusion_site; where it is empty, depth if cameras are given, unless an adapter is asked for."""
        adapter = self.fusion_mode != "concat" or self.fusion_parameters is not None or self.fusion_hooks is not None
        return self.fusion_site or ("depth" if self.cameras == "posed" and not adapter else "head")


@dataclass
class Opt:
    steps: int = MISSING
    lr: float = MISSING
    lr_fusion: float | None = MISSING
    lr_geometry: float | None = MISSING
    weight_decay: float = MISSING
    optimizer: str = MISSING
    scheduler: str = MISSING
    gradient_clip_val: float = MISSING
    precision: str = MISSING
    gradient_checkpointing: bool = MISSING
    devices: int = MISSING
    num_nodes: int = MISSING
    log_every: int = MISSING
    val_every: int = MISSING

    def __post_init__(self):
        for key in ("steps", "lr", "gradient_clip_val", "devices", "num_nodes", "log_every", "val_every"):
            require_positive(f"opt.{key}", getattr(self, key))
        for key in ("lr_fusion", "lr_geometry"):
            if (value := getattr(self, key)) is not None:
                require_positive(f"opt.{key}", value)
        require(self.weight_decay >= 0, f"opt.weight_decay is {self.weight_decay}; it must not be negative.")
        require_choice("opt.optimizer", self.optimizer, OPTIMIZERS)
        require_choice("opt.scheduler", self.scheduler, ("cosine", "multistep", "constant"))
        require_choice("opt.precision", self.precision, PRECISIONS)

    @property
    def processes(self) -> int:
        return self.devices * self.num_nodes


@dataclass
class Loss:
    mse_loss_weight: float = MISSING
    lpips_loss_weight: float = MISSING
    lpips_network: str = MISSING
    mast3r_loss_weight: float = MISSING
    masks: str = MISSING
    apply_mask: bool = MISSING
    average_over_mask: bool = MISSING

    def __post_init__(self):
        for key in ("mse_loss_weight", "lpips_loss_weight", "mast3r_loss_weight"):
            require(getattr(self, key) >= 0, f"loss.{key} is {getattr(self, key)}; it must not be negative.")
        require_choice("loss.lpips_network", self.lpips_network, LPIPS_TRUNKS)
        require_choice("loss.masks", self.masks, MASKS)
        require(
            self.mse_loss_weight + self.lpips_loss_weight > 0,
            "loss.mse_loss_weight and loss.lpips_loss_weight are both 0; the renders would train nothing.",
        )


@dataclass
class Eval:
    split: str = MISSING
    masks: str = MISSING
    lpips: Any = MISSING  # none, a trunk or a list of them; afterwards a list
    lpips_rows: str = MISSING
    lpips_as_trained: bool = MISSING
    fscore_tau: list[float] = MISSING
    num_plys: int = MISSING
    confidence: float = MISSING

    def __post_init__(self):
        require_choice("eval.split", self.split, SCORED_SPLITS)
        require_choice("eval.masks", self.masks, MASKS)
        named = self.lpips if isinstance(self.lpips, list) else [self.lpips]
        self.lpips = [] if named == ["none"] else named
        for trunk in self.lpips:
            require_choice("eval.lpips", trunk, LPIPS_TRUNKS if len(named) > 1 else ("none", *LPIPS_TRUNKS))
        require(len(set(named)) == len(named), f"eval.lpips is {named}; name each trunk once.")
        require_choice("eval.lpips_rows", self.lpips_rows, ("headline", "all"))
        require(len(self.fscore_tau) > 0, "eval.fscore_tau is empty; name at least one distance in metres.")
        for tau in self.fscore_tau:
            require_positive("eval.fscore_tau", tau)
        require(self.num_plys >= 0, f"eval.num_plys is {self.num_plys}; it must not be negative.")
        require(0.5 < self.confidence < 1, f"eval.confidence is {self.confidence}; use 0.9 or 0.95.")


@dataclass
class Probe:
    pairs: int = MISSING
    pca: int | None = MISSING

    def __post_init__(self):
        require_positive("probe.pairs", self.pairs)
        if self.pca is not None:
            require_positive("probe.pca", self.pca)


@dataclass
class Benchmark:
    resolutions: list[int] = MISSING
    warmup: int = MISSING
    repeats: int = MISSING
    device: str = MISSING
    precision: str = MISSING

    def __post_init__(self):
        for side in self.resolutions:
            require(side > 0 and side % PATCH == 0, f"benchmark.resolutions holds {side}; use a multiple of {PATCH}.")
        require_positive("benchmark.warmup", self.warmup)
        require(self.repeats >= 3, f"benchmark.repeats is {self.repeats}; a median with a spread needs at least 3.")
        require_choice("benchmark.device", self.device, ("auto", "cpu", "cuda"))
        require_choice("benchmark.precision", self.precision, PRECISIONS)


@dataclass
class Config:
    seed: int = MISSING
    threads: int = MISSING
    data: Data = MISSING
    datasets: Datasets = MISSING
    geometries: dict[str, Geometry] = MISSING
    weights: Weights = MISSING
    model: Model = MISSING
    probe: Probe = MISSING
    opt: Opt = MISSING
    loss: Loss = MISSING
    eval: Eval = MISSING
    benchmark: Benchmark = MISSING

    def __post_init__(self):
        require(self.seed >= 0, f"seed is {self.seed}; it must not be negative.")
        require_positive("threads", self.threads)
        require_choice("data.dataset", self.data.dataset, tuple(vars(self.datasets)))
        require_choice("model.geometry", self.model.geometry, tuple(self.geometries))
        for key, section in (("loss.masks", self.loss), ("eval.masks", self.eval)):
            require(
                section.masks == "strict" or self.data.dataset not in WITHOUT_METRES,
                f"{key} is {section.masks}, whose tolerance is in metres, which scenes of data.dataset="
                f"{self.data.dataset} do not have; set it to strict.",
            )
        require(
            self.model.backbone != "oracle" or self.loss.mast3r_loss_weight == 0,
            f"loss.mast3r_loss_weight is {self.loss.mast3r_loss_weight}, but model.backbone=oracle puts true points "
            "in place of the predicted ones, so a loss on points trains nothing; set it to 0.",
        )

    @property
    def dataset(self) -> Dataset:
        """The block `datasets.<data.dataset>`."""
        return getattr(self.datasets, self.data.dataset)


def one_sentence(error: Exception, place: str = "") -> str:
    """OmegaConf's and Hydra's messages run over several lines; the first says what, `full_key` says where. Of a list's
    items OmegaConf knows the place in the list alone, so an override stands for itself, as `place`."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None) or place
    text = str(cause).strip().splitlines()[0]
    return f"params.yaml or an override is wrong{f' at {key}' if key else ''}: {text}."


def change(config: DictConfig, override: Override) -> None:
    """Set one value as Hydra's grammar says it.

    raises ConfigError when the key is unknown, or the value mistyped or no single one
    """
    require(
        override.type is OverrideType.CHANGE and not override.is_sweep_override() and override.package is None,
        f"{override.input_line} does not change one value; write key=value with a key of params.yaml.",
    )
    try:
        OmegaConf.update(config, override.key_or_group, override.value())
    except OmegaConfBaseException as error:
        raise ConfigError(one_sentence(error, override.input_line)) from error


def load_config(overrides: list[str] | tuple = (), root: str | Path = ".") -> Config:
    """params.yaml of folder `root`, changed by Hydra overrides such as "opt.steps=50", as checked dataclasses.

    raises ConfigError when a key is unknown, missing or mistyped, or values cannot go together
    """
    root = Path(root).resolve()
    require(
        (root / "params.yaml").is_file(), f"There is no params.yaml in {root}; run from the repository's top folder."
    )
    try:
        config = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(root / "params.yaml"))
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            change(config, override)
        missing = sorted(OmegaConf.missing_keys(config))
        require(not missing, f"params.yaml lacks {', '.join(missing)}.")
        return OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_sentence(error)) from error
