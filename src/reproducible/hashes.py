"""Names, by SHA-256, of what went into a result: files, loaded code, values of parameters."""

import hashlib
import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path


def params_hash(*sections: object) -> str:
    """16 hex digits that name the values of configuration sections (dataclasses or plain JSON values)."""
    plain = [asdict(section) if is_dataclass(section) else section for section in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def module_hashes(prefix: str) -> dict[str, str]:
    """SHA-256 by name of the loaded modules whose names begin so: what they make must not be taken for another code's."""
    return {
        name: file_hash(module.__file__)
        for name, module in sorted(sys.modules.items())
        if name.startswith(prefix) and getattr(module, "__file__", None)
    }
