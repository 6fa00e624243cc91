"""The section `datasets` of `params.yaml`: one block per dataset, of which `data.dataset` selects one."""

from dataclasses import dataclass

from omegaconf import MISSING

from src.parameters.rules import require, require_choice, require_positive, require_share
from src.procedural.choices import SCENE_FAMILIES
from src.scenes.choices import SPLITS
from src.scenes.crop import PATCH

ON_BAD_FRAME = ("skip", "error")
VIEW_SELECTIONS = ("coverage", "gap", "splatt3r", "index")
SCANNETPP_IMAGES = ("undistorted", "fisheye")


@dataclass
class Scenes:
    train: int = MISSING
    val: int = MISSING
    dev: int = MISSING
    test: int = MISSING

    def __post_init__(self):
        for split in SPLITS:
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
        require(self.views >= 5, f"{key}.views is {self.views}; an episode needs at least 5 images.")
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
        require_choice(f"{key}.view_selection", self.view_selection, VIEW_SELECTIONS)
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
            self.view_selection not in ("gap", "index") or between >= self.num_targets,
            f"{key}.temporal_gap_min {self.temporal_gap_min} leaves {between} images between the contexts, but "
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
        require(
            self.episodes.view_selection != "index" or isinstance(self, Chunks),
            "episodes.view_selection is index, but only datasets.chunks has index files; choose another.",
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
class CaptureSource:
    """What every block of captures has."""

    root: str | None = MISSING
    train: list[str] = MISSING
    val: list[str] = MISSING
    on_bad_frame: str = MISSING

    def __post_init__(self):
        both = sorted(set(self.train) & set(self.val))
        require(not both, f"{self.key()}.train and val both name {', '.join(both)}; a capture has one split.")
        require(
            bool(self.train) == bool(self.val),
            f"{self.key()}.train names {len(self.train)} captures and val "
            f"{len(self.val)}; training needs both, evaluation alone neither.",
        )
        require_choice(f"{self.key()}.on_bad_frame", self.on_bad_frame, ON_BAD_FRAME)

    @classmethod
    def key(cls) -> str:
        return f"datasets.{cls.__name__.removesuffix('Source').lower()}.source"


@dataclass
class TransformsSource(CaptureSource):
    depth_unit: float = MISSING

    def __post_init__(self):
        super().__post_init__()
        require_positive(f"{self.key()}.depth_unit", self.depth_unit)


@dataclass
class ColmapSource(CaptureSource):
    pass


@dataclass
class Transforms(Dataset):
    source: TransformsSource = MISSING


@dataclass
class Colmap(Dataset):
    source: ColmapSource = MISSING


@dataclass
class ChunksSource:
    root: str | None = MISSING
    image_size: list[int] = MISSING
    train_scenes: int | None = MISSING
    evaluation_index: str | None = MISSING
    on_bad_frame: str = MISSING
    max_dropped: float = MISSING

    def __post_init__(self):
        key = "datasets.chunks.source"
        require(
            len(self.image_size) == 2 and min(self.image_size) > 0,
            f"{key}.image_size is {self.image_size}; it must be [width, height].",
        )
        require(
            self.train_scenes is None or self.train_scenes > 1,
            f"{key}.train_scenes is {self.train_scenes}; training needs 2 at least, of which one validates.",
        )
        require_choice(f"{key}.on_bad_frame", self.on_bad_frame, ON_BAD_FRAME)
        require_share(f"{key}.max_dropped", self.max_dropped)


@dataclass
class Chunks(Dataset):
    source: ChunksSource = MISSING

    def __post_init__(self):
        super().__post_init__()
        given = self.source.evaluation_index is not None
        require(
            given == (self.episodes.view_selection == "index"),
            "datasets.chunks.source.evaluation_index and episodes.view_selection=index belong together, but the first "
            f"is {self.source.evaluation_index} and the second {self.episodes.view_selection}.",
        )


@dataclass
class Datasets:
    procedural: Procedural = MISSING
    co3d: Co3d = MISSING
    scannetpp: ScanNetPP = MISSING
    transforms: Transforms = MISSING
    colmap: Colmap = MISSING
    chunks: Chunks = MISSING
