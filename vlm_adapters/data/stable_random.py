"""Draws that depend on their names alone: the same on every machine, in any order, with any library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def draw(*names: str | int) -> int:
    """A number below 2**64, evenly spread over names that differ."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def draw_indices(seed: int, indices: Sequence[int], count: int) -> list[int]:
    """Choose `count` of the indices, all if there are no more, and keep their order."""
    return sorted(sorted(indices, key=lambda index: draw(seed, index))[:count])
