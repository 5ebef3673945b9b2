"""The index of a finished cache: where every sample is, and the digests of what else is in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from vlm_adapters.data.files import whole_file
from vlm_adapters.data.sealed import sealed, unsealed
from vlm_adapters.errors import CacheError
from vlm_adapters.training.cache.shard import SHARD_FILE, LeftOut, damaged

INDEX_FILE = "index.json"


class CacheIndex(BaseModel):
    """Where every sample of a finished cache is.

    Attributes:
        data_fingerprint: Fingerprint of the data set.
        shard_samples: Samples of the data set that a shard covers.
        bytes: Size of all shards.
        ids: Names of the samples in the order of the shards, without those left out.
        indices: Where each is in the data set.
        phrases: How many phrases each has.
        shards: How many samples every shard holds.
        left_out: The samples that were skipped.
        fingerprint: Digest of `fingerprint.json`.
        manifests: Digest of every manifest, which holds that of its shard.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    data_fingerprint: str
    shard_samples: int
    bytes: int
    ids: list[str]
    indices: list[int]
    phrases: list[int]
    shards: list[int]
    left_out: list[LeftOut]
    fingerprint: str
    manifests: list[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the index of a cache.

        Raises:
            CacheError: The cache is unfinished, or the index is broken.
        """
        try:
            return cls.model_validate(unsealed((folder / INDEX_FILE).read_bytes()))
        except FileNotFoundError as error:
            done = len([path for path in folder.glob("shard-*.json") if SHARD_FILE.fullmatch(path.name)])
            raise CacheError(
                f"The cache {folder} is unfinished: it has no {INDEX_FILE}, and {done} shards. "
                "Run the same `adapters cache build` again: it resumes where it stopped."
            ) from error
        except (OSError, ValueError) as error:
            raise damaged(folder / INDEX_FILE, str(error).splitlines()[0]) from error

    def write(self, folder: Path) -> None:
        """Write the index, which makes the cache finished."""
        with whole_file(folder / INDEX_FILE) as temporary:
            temporary.write_bytes(sealed(self.model_dump(), indent=2))
