"""The files of a bulk run: shards in three formats, a manifest for each, and one for the run.

A folder holds `manifest.json` (what is computed, of what, and in which shards and batches), shards
(`shard-000000.safetensors`, `.jsonl` or `.parquet`) with a manifest each, and, when all are there, `index.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from vlm_adapters.bulk.formats import FORMATS, FailedItem, Item, Row
from vlm_adapters.data.files import whole_file
from vlm_adapters.data.sealed import sealed, sha256_of_file, unsealed
from vlm_adapters.errors import DataError

MANIFEST_FILE, INDEX_FILE = "manifest.json", "index.json"


class ShardManifest(BaseModel):
    """The manifest of a shard.

    Attributes:
        file: Name of the shard.
        bytes: Its size.
        file_sha256: Digest of its content.
        items: Its rows.
        failed: The images that gave none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    bytes: int
    file_sha256: str
    items: list[Item]
    failed: list[FailedItem]

    @classmethod
    def read(cls, folder: Path, number: int) -> Self:
        """Read the manifest of a shard.

        Raises:
            DataError: It is missing or damaged.
        """
        path = folder / f"{shard_name(number)}.json"
        try:
            return cls.model_validate(unsealed(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error

    @classmethod
    def intact(cls, folder: Path, number: int) -> Self | None:
        """The manifest of a shard that is there and has the bytes that were written; None for any other."""
        try:
            manifest = cls.read(folder, number)
            path = folder / manifest.file
            is_it = path.parent == folder and path.stat().st_size == manifest.bytes
            return manifest if is_it and sha256_of_file(path) == manifest.file_sha256 else None
        except (OSError, DataError):
            return None

    @property
    def digest(self) -> str:
        """Digest of the manifest's file."""
        return hashlib.sha256(sealed(self.model_dump(mode="json"), indent=2)).hexdigest()


class BulkManifest(BaseModel):
    """The manifest of a run: whoever continues it, in as many processes as there are, computes the same shards.

    Shard `n` has the items from `n * shard_size` on, and its batches have `batch_size` of them, in the order of the
    source.

    Attributes:
        format: Version of the files.
        task: What is done: `extract`, `ground` or `attend`.
        settings: How.
        backbone: The backbone.
        source: What the prompts are read from.
        source_fingerprint: Digest of the prompts.
        items: How many there are.
        shard_size: Items per shard.
        batch_size: Prompts that are computed at once.
        threads: Threads of torch, which may change the rounding on a CPU; None elsewhere.
        suffix: Ending of the shards' files.
        versions: Versions of the packages that compute.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: str
    settings: dict[str, Any]
    backbone: dict[str, Any]
    source: str
    source_fingerprint: str
    items: int
    shard_size: int
    batch_size: int
    threads: int | None
    suffix: Literal["safetensors", "jsonl", "parquet"]
    versions: dict[str, str]

    @property
    def shards(self) -> list[range]:
        """The items of every shard."""
        return _parts(range(self.items), self.shard_size)

    def batches(self, shard: range) -> list[range]:
        """The items of every batch of a shard."""
        return _parts(shard, self.batch_size)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest in a folder; None where there is none.

        Raises:
            DataError: It is damaged.
        """
        path = folder / MANIFEST_FILE
        try:
            return cls.model_validate(unsealed(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error

    def write(self, folder: Path) -> None:
        """Write the manifest."""
        with whole_file(folder / MANIFEST_FILE) as temporary:
            temporary.write_bytes(sealed(self.model_dump(mode="json"), indent=2))

    def differences(self, other: BulkManifest) -> list[str]:
        """The differences of another manifest, as `name: this there, other here`."""
        there, here = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name}: {there[name]} there, {here[name]} here" for name in here if here[name] != there[name]]


class BulkIndex(BaseModel):
    """What a finished run has.

    Attributes:
        items: How many prompts there were.
        bytes: Size of the shards.
        failed: The images that could not be used.
        manifests: Digest of the manifest of every shard.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int
    bytes: int
    failed: list[FailedItem]
    manifests: list[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the index of a run.

        Raises:
            DataError: The run is unfinished, or the index is damaged.
        """
        try:
            return cls.model_validate(unsealed((folder / INDEX_FILE).read_bytes()))
        except FileNotFoundError as error:
            raise DataError(
                f"The run in {folder} is unfinished: it has no {INDEX_FILE}. Give the same command again: it resumes "
                "where it stopped."
            ) from error
        except (OSError, ValueError) as error:
            raise _damaged(folder / INDEX_FILE, error) from error

    def write(self, folder: Path) -> None:
        """Write the index, which makes the run finished."""
        with whole_file(folder / INDEX_FILE) as temporary:
            temporary.write_bytes(sealed(self.model_dump(mode="json"), indent=2))


def shard_name(number: int) -> str:
    """Stem of the files of a shard."""
    return f"shard-{number:06d}"


def write_shard(
    folder: Path, number: int, suffix: str, rows: Sequence[tuple[Item, Row]], failed: list[FailedItem]
) -> ShardManifest:
    """Write a shard, then its manifest. The same rows give the same bytes."""
    content = FORMATS[suffix].write(rows)
    name = f"{shard_name(number)}.{suffix}"
    with whole_file(folder / name) as temporary:
        temporary.write_bytes(content)
    manifest = ShardManifest(
        file=name,
        bytes=len(content),
        file_sha256=hashlib.sha256(content).hexdigest(),
        items=[item for item, _ in rows],
        failed=failed,
    )
    with whole_file(folder / f"{shard_name(number)}.json") as temporary:
        temporary.write_bytes(sealed(manifest.model_dump(mode="json"), indent=2))
    return manifest


def read_results(folder: str | Path) -> Iterator[tuple[Item, Row]]:
    """Read what a finished run found, image by image; a shard is compared with its digest before.

    Args:
        folder: Folder of the run.

    Yields:
        Every item with what was found: arrays by name, or values of JSON.

    Raises:
        DataError: The run is unfinished or damaged.
    """
    folder = Path(folder)
    manifest, index = BulkManifest.read(folder), BulkIndex.read(folder)
    if manifest is None:
        raise DataError(f"{folder} has no {MANIFEST_FILE}. Give the folder of a bulk run.")
    for number, digest in enumerate(index.manifests):
        shard = ShardManifest.intact(folder, number)
        if shard is None or shard.digest != digest:
            raise DataError(
                f"Shard {number} of {folder} is damaged. Give the command of the run again: it computes the shard anew."
            )
        try:
            rows = FORMATS[manifest.suffix].read(folder / shard.file, len(shard.items))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise _damaged(folder / shard.file, error) from error
        yield from zip(shard.items, rows, strict=True)


def _parts(items: range, most: int) -> list[range]:
    return [items[start : start + most] for start in range(0, len(items), most)]


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged: {str(error).splitlines()[0]}. Remove it, and give the same command again.")
