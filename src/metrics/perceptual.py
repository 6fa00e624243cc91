"""Which pictures LPIPS scores, by which trunks, and the features of target images that several episodes share.

The first trunk of eval.lpips is the headline: its columns are `lpips` and `lpips_masked`. Another one's carry its name,
`lpips_alex` and `lpips_alex_masked`. By eval.lpips_rows=headline they score aligned pictures alone, which runs are
compared by; and VGG-16, which has 20 times AlexNet's operations, scores no baselines.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from src.metrics.image import Lpips, load_lpips, lpips_scores

COSTLY = ("vgg",)
KEPT = 12  # images whose features stay: 8 MB of VGG-16's at 128 px, 16 times that at 512


class Kept:
    """The last values by their keys, for several threads."""

    def __init__(self, size: int):
        self.size, self.lock = size, Lock()
        self.values: OrderedDict[object, list[Tensor]] = OrderedDict()

    def get(self, key: object, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """The value of `key`, computed where it is not kept; two threads may both compute it, to the same end."""
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
        value = compute()
        with self.lock:
            self.values[key] = value
            while len(self.values) > self.size:
                self.values.popitem(last=False)
        return value


class Perceptual:
    """LPIPS of a run. networks: trunk -> network, the headline first; none where eval.lpips is none."""

    def __init__(self, networks: dict[str, Lpips], rows: str = "headline"):
        self.networks, self.rows, self.targets = networks, rows, Kept(KEPT * max(len(networks), 1))

    @classmethod
    def load(cls, trunks: list[str], rows: str, folder: Path) -> "Perceptual":
        """raises FileNotFoundError, ValueError, see `load_lpips`"""
        return cls({trunk: load_lpips(folder / trunk) for trunk in trunks}, rows)

    @property
    def published(self) -> Lpips | None:
        """The network of Splatt3R's own scores; they black pictures out, which costs as much again."""
        return next(iter(self.networks.values()), None) if self.rows == "all" else None

    def wants(self, trunk: str, method: str, alignment: str) -> bool:
        """Whether a trunk scores such pictures."""
        headline = alignment == "aligned" and (method == "render" or trunk not in COSTLY)
        return headline or self.rows == "all"

    @torch.no_grad()
    def scores(
        self, pictures: dict[str, Tensor], names: dict[tuple[str, str], str], target: Tensor, mask: Tensor, key: object
    ) -> dict[tuple[str, str], dict[str, float | None]]:
        """Scores of one target by method and alignment, absent ones None.

        pictures  name -> (3, H, W)
        names     method, alignment -> name of its picture: one picture may stand for several
        target    (3, H, W) in [0, 1], with `key` for its features; mask (H, W)
        """
        found: dict[tuple[str, str], dict[str, float | None]] = {pair: {} for pair in names}
        for trunk, network in self.networks.items():
            known = self.targets.get((trunk, key), partial(network.features, target.float()[None]))
            scored = [pair for pair in names if self.wants(trunk, *pair)]
            shown = list(dict.fromkeys(names[pair] for pair in scored))
            renders = torch.stack([pictures[name] for name in shown])  # (N, 3, H, W)
            scores = dict(zip(shown, lpips_scores(network, renders, known, mask), strict=True))
            for pair, name in names.items():
                values = scores[name] if pair in scored else dict.fromkeys(("lpips", "lpips_masked"))
                found[pair] |= {self.column(trunk, metric): value for metric, value in values.items()}
        return found

    def column(self, trunk: str, metric: str) -> str:
        """lpips_masked of the headline as it is; of another trunk lpips_alex_masked."""
        return metric if trunk == next(iter(self.networks)) else metric.replace("lpips", f"lpips_{trunk}", 1)

    def absences(self) -> dict[str, str]:
        """What is not scored, and why, in words."""
        if not self.networks:
            return {
                "LPIPS": "eval.lpips is none: the metric needs a pretrained network, which this run did not ask for "
                "(eval.lpips=alex or vgg turns it on)"
            }
        if self.rows == "all":
            return {}
        found = {
            "LPIPS of pictures as predicted, and by Splatt3R's definition": "eval.lpips_rows is headline "
            "(eval.lpips_rows=all turns them on)"
        }
        if costly := [trunk for trunk in self.networks if trunk in COSTLY]:
            found[f"LPIPS ({', '.join(costly)}) of baselines"] = (
                "its network is large, so by eval.lpips_rows=headline it scores renders alone (eval.lpips_rows=all: "
                "every picture)"
            )
        return found
