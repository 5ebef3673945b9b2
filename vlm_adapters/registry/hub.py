"""What the hub answers, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # it is no private name

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MOST_LETTERS = 300


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository of an owner on the hub, `owner/name`; `../name` cannot."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(_HUB_ID.fullmatch(name))


def hub_reason(error: Exception, options: Mapping[str, Any], missing: str) -> str:
    """Why a file or a repository of the hub could not be used.

    Args:
        error: What huggingface_hub raised.
        options: What it was called with: `revision`, `local_files_only`, ...
        missing: What a repository without the file has not, and what follows.
    """
    unreachable = "the hub cannot be reached"
    for name, is_set in (
        ("HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE),
        ("local_files_only", "local_files_only" in options),
    ):
        unreachable = f"{name} is set, so the hub was not contacted" if is_set else unreachable
    reasons: dict[type[Exception], str] = {  # the first match counts, so subclasses stand before their bases
        LocalEntryNotFoundError: f"it is not in the local cache, and {unreachable}",
        GatedRepoError: "the repository is gated; accept its terms there, and give a token or run `hf auth login`",
        RepositoryNotFoundError: "there is no such repository, or it is private and needs a token or `hf auth login`",
        RevisionNotFoundError: f"the repository has no revision {options.get('revision')!r}",
        EntryNotFoundError: f"the repository has no {missing}",
    }
    message = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_LETTERS]
    return next((reason for kind, reason in reasons.items() if isinstance(error, kind)), message)
