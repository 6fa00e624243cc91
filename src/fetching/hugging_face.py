"""Files on the Hugging Face hub, by its own library: one cache for all clones (HF_HOME), tokens, gated weights."""

import os
import re
from pathlib import Path

from src.fetching.fetch import FetchError, cause_of, offline, verify
from src.pretrained.source import HUB, Source

SHA256 = re.compile("[0-9a-f]{64}")


def from_hub(source: Source, repository: str, revision: str, file: str) -> Path:
    """Path of a verified file in the hub's cache, from where it is taken without asking the hub; else fetched.

    raises  FetchError  its message without a full stop, for the caller to add what the user can do
    """
    import huggingface_hub as library  # here, as it takes a second and most runs need nothing of the hub

    found = library.try_to_load_from_cache(repository, file, revision=revision)
    if not isinstance(found, str):
        if offline():
            raise FetchError("HF_HUB_OFFLINE is set, so nothing is downloaded, and the hub's cache does not hold it")
        print(f"fetching {source.url} (about {source.megabytes} MB)", flush=True)
        found = requested(source.url, repository, revision, file)
    verify(Path(found), stated_sha256(Path(found)), found)
    return Path(found)


def stated_sha256(path: Path) -> str:
    """What the hub states of a large file: it is the name of what the path in the cache links to; else empty."""
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if SHA256.fullmatch(name) else ""


def requested(url: str, repository: str, revision: str, file: str) -> str:
    """Path of a file that the hub was asked for.

    raises  FetchError  see `from_hub`
    """
    import huggingface_hub as library
    from huggingface_hub import errors

    page = f"{HUB}/{repository}"
    sign_in = "set HF_TOKEN to a token of yours (or run hf auth login)"
    try:
        return library.hf_hub_download(repository, file, revision=revision)
    except errors.GatedRepoError as error:
        raise FetchError(f"{url} is gated; accept its terms at {page} and {sign_in}") from error
    except errors.RepositoryNotFoundError as error:
        raise FetchError(
            f"the hub has no repository {repository} for you; where it is private or gated, accept its terms at {page} "
            f"and {sign_in}"
        ) from error
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise FetchError(f"{url} is not on the hub: {repository} has no {file} at its revision {revision}") from error
    except errors.LocalEntryNotFoundError as error:
        raise FetchError(refusal(url, error.__cause__ or error)) from error
    except (errors.HTTPError, OSError) as error:
        raise FetchError(refusal(url, error)) from error


def refusal(url: str, error: Exception) -> str:
    """What the hub, the network or the disk answered, in one line."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{url} cannot be fetched ({' '.join(cause_of(error).split())})"
    words = f"{url} answers {response.status_code} {response.reason_phrase}"
    return f"{words}; your HF_TOKEN may not read it" if response.status_code in (401, 403) else words
