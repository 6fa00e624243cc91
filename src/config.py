"""The typed form of `params.yaml`: values live there, types and rules live here.

What a backbone may be called is the registry's to say (src/backbones), which the stage `check` asks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.datasets.choices import ON_BAD_FRAME, SCANNETPP_IMAGES
from src.geometry.choices import MASKS
from src.pretrained.choices import DINOV2_WIDTHS, LPIPS_TRUNKS
from src.procedural.choices import SCENE_FAMILIES
from src.scenes.crop import PATCH
from src.splatt3r.choices import CAMERAS, FUSION_MODES, FUSION_SITES, OPTIMIZERS, PRECISIONS, SH_DEGREES, STRATEGIES

MERGING = "Error merging override "  # Hydra's words
WITHOUT_METRES = ("co3d", "transforms")  # datasets whose scenes have a scale of their own


class ConfigError(ValueError):
    """A mistake in params.yaml or in an override; the message is one sentence that names the key."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def require_choice(key: str, value: object, choices: tuple) -> None:
    require(value in choices, f"{key} is {value!r}; choose one of {', '.join(map(str, choices))}.")


def require_positive(key: str, value: float) -> None:
    require(value > 0, f"{key} is {value}; it must be greater than 0.")


def require_share(key: str, value: float) -> None:
    require(0 <= value <= 1, f"{key} is {value}; it must lie between 0 and 1.")


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
class Scenes:
    train: int = MISSING
    val: int = MISSING
    test: int = MISSING

    def __post_init__(self):
        for split in ("train", "val", "test"):
            require_positive(f"datasets.procedural.source.scenes.{split}", getattr(self, split))


@dataclass
class ProceduralSource:
    families: list[str] = MISSING
    scenes: Scenes = MISSING
    views: int = MISSING
    samples: int = MISSING

    def __post_init__(self):
        key = "datasets.procedural.source"
        require(len(self.families) > 0, f"{key}.families is empty; name at least one of {', '.join(SCENE_FAMILIES)}.")
        require(len(set(self.families)) == len(self.families), f"{key}.families {self.families} repeats a name.")
        for family in self.families:
            require_choice(f"{key}.families", family, SCENE_FAMILIES)
        require(self.views >= 5, f"{key}.views is {self.views}; an episode needs at least 5 photographs.")
        require_positive(f"{key}.samples", self.samples)


@dataclass
class Episodes:
    view_selection: str = MISSING
    alpha: float = MISSING
    beta: float = MISSING
    temporal_gap_min: int = MISSING
    temporal_gap_max: int = MISSING
    num_targets: int = MISSING
    per_bin: int = MISSING

    def __post_init__(self):
        key = "episodes"
        require_choice(f"{key}.view_selection", self.view_selection, ("coverage", "gap", "splatt3r"))
        require_share(f"{key}.alpha", self.alpha)
        require_share(f"{key}.beta", self.beta)
        require(
            2 <= self.temporal_gap_min <= self.temporal_gap_max,
            f"{key}.temporal_gap_min {self.temporal_gap_min} and temporal_gap_max {self.temporal_gap_max} must "
            "satisfy 2 <= min <= max, or no frame lies between the two contexts.",
        )
        require_positive(f"{key}.num_targets", self.num_targets)
        require_positive(f"{key}.per_bin", self.per_bin)
        between = self.temporal_gap_min - 1
        require(
            self.view_selection != "gap" or between >= self.num_targets,
            f"{key}.temporal_gap_min {self.temporal_gap_min} leaves {between} photographs between the contexts, but "
            f"{key}.num_targets is {self.num_targets}; raise the gap or take fewer targets.",
        )


@dataclass
class Dataset:
    """What every dataset block has; `source` is added by each."""

    resolution: list[int] = MISSING
    train_category: str | None = MISSING
    test_category: str | None = MISSING
    episodes: Episodes = MISSING
    seed_sd: dict[str, dict[str, float]] = MISSING

    def __post_init__(self):
        require(len(self.resolution) == 2, f"resolution is {self.resolution}; it must be [width, height].")
        for side in self.resolution:
            require(
                side >= PATCH and side % PATCH == 0,
                f"resolution {self.resolution} (a key of the chosen datasets block) is not divisible: each side "
                f"must be a multiple of the geometry network's patch size {PATCH}, for example "
                f"{max(1, round(side / PATCH)) * PATCH} instead of {side}.",
            )
        for metric, found in self.seed_sd.items():
            require(
                found.keys() == {"own", "shared"} and min(found.values()) >= 0,
                f"seed_sd.{metric} (of the chosen datasets block) is {found}; it must be {{own: ..., shared: ...}}, two "
                "standard deviations that are not negative.",
            )


@dataclass
class Procedural(Dataset):
    source: ProceduralSource = MISSING

    def __post_init__(self):
        super().__post_init__()
        for key in ("train_category", "test_category"):
            if (value := getattr(self, key)) is not None:
                require_choice(f"datasets.procedural.{key}", value, tuple(self.source.families))


@dataclass
class Co3dSource:
    root: str | None = MISSING
    store: str = MISSING
    subset: str = MISSING
    categories: list[str] = MISSING
    upstream: str = MISSING
    mirror: str | None = MISSING
    allow_unverified: bool = MISSING
    keep_archives: bool = MISSING
    min_quality: float = MISSING
    on_bad_frame: str = MISSING
    max_dropped: float = MISSING

    def __post_init__(self):
        key = "datasets.co3d.source"
        require_choice(f"{key}.subset", self.subset, ("singlesequence", "full"))
        require_choice(f"{key}.on_bad_frame", self.on_bad_frame, ON_BAD_FRAME)
        require_share(f"{key}.max_dropped", self.max_dropped)


@dataclass
class Co3d(Dataset):
    source: Co3dSource = MISSING


@dataclass
class ScanNetPPSource:
    root: str | None = MISSING
    images: str = MISSING
    on_bad_frame: str = MISSING

    def __post_init__(self):
        key = "datasets.scannetpp.source"
        require_choice(f"{key}.images", self.images, SCANNETPP_IMAGES)
        require_choice(f"{key}.on_bad_frame", self.on_bad_frame, ON_BAD_FRAME)


@dataclass
class ScanNetPP(Dataset):
    source: ScanNetPPSource = MISSING


@dataclass
class TransformsSource:
    root: str | None = MISSING
    train: list[str] = MISSING
    val: list[str] = MISSING
    depth_unit: float = MISSING
    on_bad_frame: str = MISSING

    def __post_init__(self):
        key = "datasets.transforms.source"
        both = sorted(set(self.train) & set(self.val))
        require(not both, f"{key}.train and {key}.val both name {', '.join(both)}; a capture has one split.")
        require(
            bool(self.train) == bool(self.val),
            f"{key}.train names {len(self.train)} captures and val "
            f"{len(self.val)}; training needs both, evaluation alone neither.",
        )
        require_positive(f"{key}.depth_unit", self.depth_unit)
        require_choice(f"{key}.on_bad_frame", self.on_bad_frame, ON_BAD_FRAME)


@dataclass
class Transforms(Dataset):
    source: TransformsSource = MISSING


@dataclass
class Datasets:
    procedural: Procedural = MISSING
    co3d: Co3d = MISSING
    scannetpp: ScanNetPP = MISSING
    transforms: Transforms = MISSING


@dataclass
class Geometry:
    file: str = MISSING
    initial_head: str = MISSING
    initial_scale: float = MISSING
    initial_opacity: float = MISSING
    max_scale: float | None = MISSING
    max_offset: float | None = MISSING

    def __post_init__(self):
        require_choice("geometries.<name>.initial_head", self.initial_head, ("drawn", "points"))
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
    fusion_site: str | None = MISSING  # afterwards never None
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
        self.fusion_site = self.fusion_site or ("depth" if self.cameras == "posed" else "head")
        require_choice("model.fusion_site", self.fusion_site, FUSION_SITES)
        require(
            self.fusion_site != "depth" or self.cameras == "posed",
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
            self.fusion_hooks is None or self.fusion_site == "head",
            f"model.fusion_hooks belongs to fusion_site head; leave it empty for site {self.fusion_site}.",
        )
        require(
            self.freeze_dinov2 is not False,
            "model.freeze_dinov2 is false, but backbone features are computed once and cached, which needs a frozen "
            "backbone; leave it empty or set it to true. One that was trained elsewhere is measured by naming its "
            "file in model.weights.",
        )


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
    masks: str = MISSING
    lpips: Any = MISSING  # none, a trunk or a list of them; afterwards a list
    lpips_rows: str = MISSING
    lpips_as_trained: bool = MISSING
    fscore_tau: list[float] = MISSING
    num_plys: int = MISSING
    confidence: float = MISSING

    def __post_init__(self):
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

    def __post_init__(self):
        require_positive("probe.pairs", self.pairs)


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


ConfigStore.instance().store(name="schema", node=Config)
ConfigStore.instance().store(name="main", node={"defaults": ["schema", "params", "_self_"]})


def one_sentence(error: Exception) -> str:
    """OmegaConf's and Hydra's messages run over several lines; the first says what, `full_key` says where."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    if not key and str(error).startswith(MERGING):  # of a list's items OmegaConf knows the place in the list alone
        key = str(error).removeprefix(MERGING)
    text = str(cause).strip().splitlines()[0]
    return f"params.yaml or an override is wrong{f' at {key}' if key else ''}: {text}."


def load_config(overrides: list[str] | tuple = (), root: str | Path = ".") -> Config:
    """params.yaml of folder `root`, changed by Hydra overrides such as "opt.steps=50", as checked dataclasses.

    raises ConfigError when a key is unknown, missing or mistyped, or values cannot go together
    """
    root = Path(root).resolve()
    require(
        (root / "params.yaml").is_file(), f"There is no params.yaml in {root}; run from the repository's top folder."
    )
    try:
        with initialize_config_dir(str(root), version_base="1.3"):
            composed = compose("main", overrides=list(overrides))
        config = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.to_container(composed))  # refuses "+new=1"
        missing = sorted(OmegaConf.missing_keys(config))
        require(not missing, f"params.yaml lacks {', '.join(missing)}.")
        return OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_sentence(error)) from error
