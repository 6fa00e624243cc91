"""Archives that the tests write, and what came out of them."""

import io
import zipfile


def zipped(members, compression=zipfile.ZIP_DEFLATED) -> bytes:
    """Members: name -> bytes, or a list of (ZipInfo or name, bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return buffer.getvalue()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
