"""Where a publisher offers a weight file, and under which licence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A file that its publisher offers.

    url        official address
    licence    of the file
    file       its name in our cache, in `weights.root` and on a mirror; by default the last part of the address
    sha256     hexadecimal, whole or the first digits, where the publisher states it; else empty
    megabytes  about how large it is
    gated      the publisher hands it out only after its terms were accepted in a browser
    """

    url: str
    licence: str
    megabytes: int
    file: str = ""
    sha256: str = ""
    gated: bool = False

    @property
    def name(self) -> str:
        return self.file or self.url.rsplit("/", 1)[-1]
