"""What a check of somebody's files says: all of it, one line each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """fault: the files must not be used as they are; otherwise good to know."""

    fault: bool
    text: str

    def __str__(self) -> str:
        return f"{'fault' if self.fault else 'note'}: {self.text}"


def fault(text: object) -> Finding:
    return Finding(True, str(text))


def note(text: object) -> Finding:
    return Finding(False, str(text))
