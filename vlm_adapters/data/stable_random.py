"""Random choices that depend on their keys alone: the same on every machine, in any order, with any library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def stable_hash(*keys: str | int) -> int:
    """Hash the keys to a number below 2**64, evenly distributed over different keys."""
    digest = hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def stable_sample(indices: Sequence[int], count: int, seed: int) -> list[int]:
    """Choose `count` of the indices, or all if there are no more, and keep their order."""
    return sorted(sorted(indices, key=lambda index: stable_hash(seed, index))[:count])
