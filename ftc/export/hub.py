"""The upload of a deployed model to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ftc.errors import InputError


def push(folder: Path, repository: str, tell: Callable[[str], object]) -> None:
    """Upload a deployed folder where there is a login; otherwise only say what would be uploaded.

    Args:
        folder: the folder.
        repository: the Hub's name of the model, ``you/name``.
        tell: function that prints a line.

    Raises:
        InputError: the Hub refuses it or is out of reach.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if get_token() is None:
        tell(f"push={repository}: no login, so nothing was uploaded; it would be {', '.join(files)}")
        tell("`hf auth login`, then the same command with overwrite=true uploads them")
        return
    try:
        api = HfApi(library_name="ftc")
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Deploy with ftc")
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"push={repository}: {reason}; {folder} is complete, upload it by hand") from error
    tell(f"Uploaded: {address}")
