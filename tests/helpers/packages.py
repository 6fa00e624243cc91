"""A package as pip leaves it: files, and their list in a folder of metadata."""

from pathlib import Path


def install(folder: Path, name: str, files: dict[str, bytes], version: str = "0.1.0") -> None:
    """Into `folder`, which is to stand in the search path."""
    metadata = f"{name.replace('-', '_')}-{version}.dist-info"
    listed = {f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()} | files
    for file, content in listed.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    (folder / metadata / "RECORD").write_text("".join(f"{file},,\n" for file in [*listed, f"{metadata}/RECORD"]))
