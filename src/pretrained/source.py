"""Where a publisher offers a weight file, and under which licence."""

import re
from dataclasses import dataclass

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Packaged:
    """A weight file that an ordinary package of the package index ships.

    title    of the network in it
    package  its name in the index
    version  the one whose file was checked; requirements-weights.txt pins it
    file     its path under site-packages
    licence  of the weights
    sha256   of the file, all 64 digits
    """

    title: str
    package: str
    version: str
    file: str
    licence: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A file that its publisher offers.

    url        official address
    licence    of the file
    file       its name in our cache, in `weights.root` and on a mirror; by default the last part of the address
    sha256     hexadecimal, whole or the first digits, where the publisher states it; else empty
    megabytes  about how large it is
    gated      the publisher hands it out only after its terms were accepted in a browser
    packaged   the same network's weights in a package, which stand in for the download where it is installed
    """

    url: str
    licence: str
    megabytes: int
    file: str = ""
    sha256: str = ""
    gated: bool = False
    packaged: Packaged | None = None

    @property
    def name(self) -> str:
        return self.file or self.url.rsplit("/", 1)[-1]

    @property
    def on_hub(self) -> tuple[str, str, str] | None:
        """Repository, revision and file of an address on the Hugging Face hub."""
        found = re.fullmatch(rf"{HUB}/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.url)
        return found and found.groups()
