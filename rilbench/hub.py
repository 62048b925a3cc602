"""Download from the Hugging Face hub and publish on it, with errors that name the remedy.

The client is ``huggingface_hub``: it takes its address from ``HF_ENDPOINT``, its token from
``HF_TOKEN`` or ``hf auth login``, and keeps downloads in ``HF_HOME``, where it goes on with a file
that was cut.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from rilbench.errors import UserError


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit of a data set's repository."""

    files: tuple[Path, ...]
    revision: str
    """The commit's hash."""
    license: str
    """As the repository states it; "" if it states none."""


def download_dataset(name: str, revision: str, patterns: Sequence[str]) -> Snapshot:
    """Download files of a data set, as far as they are not in the hub's cache.

    Args:
        name: ``owner/name``.
        revision: a commit, a tag or a branch.
        patterns: of the files' names, such as ``data/train-*.parquet``.

    Raises:
        UserError: there is no such data set, revision or file, it needs a permission, the hub does
            not answer, or the disk is too small.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    with _errors(name, revision):
        info = HfApi().dataset_info(name, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        wanted = [file for file in sizes if any(fnmatch(file, pattern) for pattern in patterns)]
        if not wanted:
            raise UserError(
                f"the data set {name} has no file like {', '.join(patterns)}; it has "
                f"{', '.join(sorted(sizes)[:5]) or 'none'}"
            )
        _check_room(Path(HF_HUB_CACHE), sum(sizes[file] for file in wanted), name)
        folder = snapshot_download(
            name, repo_type="dataset", revision=info.sha, allow_patterns=list(patterns)
        )
    card = info.card_data
    stated = card.get("license") if card is not None else None
    licence = ", ".join(stated) if isinstance(stated, list) else str(stated or "")
    files = tuple(Path(folder) / file for file in sorted(wanted))
    return Snapshot(files, str(info.sha), licence)


def upload_folder(folder: Path, name: str, kind: str, message: str, *, private: bool) -> str:
    """Publish a folder's files as one commit; return the repository's address.

    Args:
        folder: what to publish.
        name: ``owner/name``; the repository is made if there is none.
        kind: ``model`` or ``dataset``.
        message: of the commit.
        private: whether a new repository is private.

    Raises:
        UserError: there is no token, it may not write there, or the hub does not answer.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _errors(name, "main"):
        url = api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, commit_message=message)
    return str(url)


def _check_room(cache: Path, needed: int, name: str) -> None:
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"{name} needs {needed / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB free; make "
            "room, or set HF_HOME to another disk"
        )


@contextmanager
def _errors(name: str, revision: str) -> Iterator[None]:
    """One line for what the hub and the network answer."""
    import httpx
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{name} is gated; accept its terms on its page, then set HF_TOKEN to a token of yours"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no {name}, or it is private; check the name, or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision {revision}; give another one") from error
    except HFValidationError as error:
        raise UserError(f"{name} is no name on the hub; give it as owner/name") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError) as error:
        response = getattr(error, "response", None)
        status = response.status_code if response is not None else 0
        if status in (401, 403):
            raise UserError(
                f"the hub refuses your token for {name} ({status}); set HF_TOKEN to one that may"
            ) from error
        said = " ".join(str(error).split())[:150]
        raise UserError(f"the hub did not answer for {name} ({said}); run again") from error
