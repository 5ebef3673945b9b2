"""JSON that carries the digest of its own bytes, so that a flipped bit or an edit is noticed where it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
"""The last key: the digest of the text, with zeros in place of the digest."""

_BLANK = "0" * 64


def sealed(content: Mapping[str, object], *, indent: int | None = None) -> bytes:
    """Write content as JSON that ends with its digest and a line break; without an indent, one line."""
    text = json.dumps({**content, SEAL: _BLANK}, indent=indent, ensure_ascii=False).encode() + b"\n"
    before, blank, after = text.rpartition(_BLANK.encode())
    return before + hashlib.sha256(before + blank + after).hexdigest().encode() + after


def unsealed(text: bytes) -> dict[str, Any]:
    """Read what `sealed` wrote, without the digest.

    Raises:
        ValueError: It is not exactly what was written.
    """
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"it is not JSON ({str(error)[:80]}): it was changed or cut off after it was written"
        ) from error
    digest = content.pop(SEAL, None) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(digest, str):
        raise ValueError(f"it has no {SEAL}: it was changed, or written by an earlier version")  # noqa: TRY004
    before, _, after = text.rpartition(digest.encode())
    if hashlib.sha256(before + _BLANK.encode() + after).hexdigest() != digest:
        raise ValueError(f"it was changed after it was written: its {SEAL} differs")
    return content


def sha256_of_file(path: Path) -> str:
    """The digest of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
