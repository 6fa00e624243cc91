"""What a dataset hands to `prepare`: its listed scenes, none of them decoded yet."""

from dataclasses import dataclass, field
from typing import Callable, Iterator

from src.datasets.splits import DIVIDED
from src.datasets.usable import Tally
from src.scenes.reconstruction import Points
from src.scenes.scene import Frame


@dataclass(frozen=True)
class ListedEpisode:
    """The views, by frame name, that somebody else's list scores of a scene; overlap: that list's own word for it."""

    contexts: tuple[str, ...]
    targets: tuple[str, ...]
    overlap: str | None = None


@dataclass(frozen=True, eq=False)
class Recording:
    """One listed scene.

    id         file name in the scene format: <category>__<sequence>
    split      one of SPLITS
    units      metre | scene
    listed     number of photographs the dataset lists for it
    frames     yields the decodable ones, one at a time, and tells the tally about every other listed one
    metadata   JSON values kept in the scene file: license, quality, source, ...
    details    by frame name, JSON values kept with the frame: source path, sharpness, ...
    points     reads the reconstruction's points, where a dataset has them; asked only where there is no depth
    fingerprint  computes a name that changes with the raw data; without it an interrupted run begins the scene anew
    min_frames  fewer usable photographs drop the scene; None = as the catalogue says
    episode    what an evaluation index scores of it; then nothing else is
    """

    id: str
    category: str
    split: str
    units: str
    listed: int
    frames: Callable[[Tally], Iterator[Frame]]
    metadata: dict = field(default_factory=dict)
    details: dict[str, dict] = field(default_factory=dict)
    points: Callable[[], Points] | None = None
    fingerprint: Callable[[], str] | None = None
    min_frames: int | None = None
    episode: ListedEpisode | None = None


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All listed scenes of a dataset: those to convert, and the ids of those left out, by reason.

    min_frames     a scene with fewer usable photographs is dropped
    on_bad_frame   skip: an unusable photograph is left out and named in the report; error: it stops the stage
    crop           central, or splatt3r: data.crop
    max_dropped    share of the listed scenes above which unusable ones stop the stage
    excluded       ids, by reason, of scenes without fault that the dataset's protocol leaves out; not counted as listed
    required       splits that must offer episodes; another may be empty
    index          what there is to tell of an evaluation index that the dataset was listed with
    """

    dataset: str
    recordings: list[Recording]
    skipped: dict[str, list[str]] = field(default_factory=dict)
    min_frames: int = 10
    on_bad_frame: str = "skip"
    crop: str = "central"
    max_dropped: float = 0.2
    excluded: dict[str, list[str]] = field(default_factory=dict)
    required: tuple[str, ...] = DIVIDED
    index: dict | None = None
