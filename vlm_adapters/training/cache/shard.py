"""A shard: a file of tensors for some samples, and a manifest that says what is in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from vlm_adapters.data.files import json_bytes, whole_file, write_json
from vlm_adapters.data.sample import Annotation
from vlm_adapters.data.sealed import sha256_of_file
from vlm_adapters.decoder.features import PhraseFeatures
from vlm_adapters.decoder.sam.geometry import Frame
from vlm_adapters.decoder.sam.model import EncodedImage
from vlm_adapters.errors import CacheError
from vlm_adapters.prompt import Phrase
from vlm_adapters.training.samples import ExtractedSample

Array = NDArray[Any]

SHARD_FILE = re.compile(r"shard-(\d{6,})\.(?:safetensors|json)")


class ShardEntry(BaseModel):
    """What a manifest says of one sample of a shard.

    Attributes:
        index: Where it is in the data set.
        id: Its name there.
        key: Digest of its image, text, phrases and masks, and of the cache's fingerprint: when it changes, the shard is
            computed anew.
        phrases: How many it has.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    index: int
    id: str
    key: str
    phrases: int


class LeftOut(BaseModel):
    """A sample that could not be read.

    Attributes:
        index: Where it is in the data set.
        message: What is wrong with it, and where.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    index: int
    message: str


class Manifest(BaseModel):
    """The manifest of a shard.

    Attributes:
        file: Name of the shard.
        bytes: Its size.
        sha256: Digest of its content.
        samples: Its samples, row by row.
        left_out: The samples that were skipped.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    file: str
    bytes: int
    sha256: str
    samples: list[ShardEntry]
    left_out: list[LeftOut]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest.

        Raises:
            CacheError: It is missing, or broken.
        """
        try:
            content = path.read_bytes()
            manifest = cls.model_validate_json(content)
        except (OSError, ValidationError) as error:
            raise damaged(path, str(error).splitlines()[0]) from error
        if content != json_bytes(manifest.model_dump()):
            raise damaged(path, "it is not as it was written")
        return manifest

    @property
    def digest(self) -> str:
        """Digest of the manifest's file."""
        return hashlib.sha256(json_bytes(self.model_dump())).hexdigest()

    def is_intact(self, folder: Path) -> bool:
        """Whether the shard is there, and has the bytes that were written."""
        path = folder / self.file
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        return sha256_of_file(path) == self.sha256


def damaged(path: Path, reason: str) -> CacheError:
    """The error for a file of a cache that is not what was written."""
    return CacheError(
        f"{path} is damaged: {reason}. Run `adapters cache build` with the same recipe and changes: it computes "
        "again what is damaged, and the rest stays."
    )


def write_shard(
    folder: Path,
    number: int,
    entries: Sequence[ShardEntry],
    samples: Sequence[ExtractedSample],
    left_out: list[LeftOut],
) -> Manifest:
    """Write a shard, then its manifest. The same samples give the same bytes.

    Args:
        folder: Folder of the cache.
        number: Number of the shard.
        entries: What the manifest says of every sample.
        samples: The samples.
        left_out: The samples that were skipped.
    """
    tensors: dict[str, Array] = {}
    for row, sample in enumerate(samples):
        tensors |= packed(row, sample)
    content = save(tensors)
    name = shard_name(number)
    with whole_file(folder / f"{name}.safetensors") as temporary:
        temporary.write_bytes(content)
    manifest = Manifest(
        file=f"{name}.safetensors",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        samples=list(entries),
        left_out=left_out,
    )
    write_json(folder / f"{name}.json", manifest.model_dump())
    return manifest


def shard_name(number: int) -> str:
    """Stem of the files of a shard."""
    return f"shard-{number:06d}"


def read_rows(path: Path, rows: Sequence[int]) -> list[ExtractedSample]:
    """Read some samples of a shard, and no others.

    Raises:
        CacheError: The shard is damaged.
    """
    try:
        with safe_open(path, framework="pt") as tensors:
            return [_unpacked(row, tensors.get_tensor, set(tensors.keys())) for row in rows]
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise damaged(path, str(error)) from error


def packed(row: int, sample: ExtractedSample) -> dict[str, Array]:
    """The tensors of a sample, as a shard has them in a row; bfloat16, which numpy does not know, as its bits."""
    annotation, features, image = sample.annotation, sample.features, sample.image
    about = {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "text": annotation.text,
        "spans": [phrase.span for phrase in annotation.phrases],
        "phrase_ids": annotation.phrase_ids,
        "phrase_tags": annotation.phrase_tags,
        "box": features.box,
        "tokens": [states.shape[1] for states in features.hidden],
        "size": sample.masks.shape[1:],
        "side": image.frame.side if image else None,
        "dtype": str(features.maps.dtype).removeprefix("torch."),
    }
    tensors = {
        "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        "maps": _bits(features.maps),
        "masks": np.packbits(sample.masks.reshape(len(sample.masks), -1), axis=1),
    }
    if features.hidden:
        tensors["hidden"] = _bits(torch.cat(features.hidden, dim=1))
    if features.log_probabilities:
        tensors["log_probabilities"] = torch.cat(features.log_probabilities).numpy()
    if image:
        tensors["image"] = _bits(image.features)
    return {f"{row:06d}.{name}": tensor for name, tensor in tensors.items()}


def _bits(tensor: Tensor) -> Array:
    # safetensors.torch.save keeps a type for every size it ever saw, so memory would grow with the data
    dense = tensor.contiguous()
    array: Array = (dense.view(torch.int16) if dense.dtype == torch.bfloat16 else dense).numpy()
    return array


def _unpacked(row: int, tensor: Callable[[str], Tensor], names: set[str]) -> ExtractedSample:
    prefix = f"{row:06d}."
    about = json.loads(tensor(f"{prefix}about").numpy().tobytes())
    text, size = about["text"], tuple(about["size"])
    annotation = Annotation(
        id=about["id"],
        image_id=about["image_id"],
        text=text,
        phrases=tuple(Phrase.at(text, start, end) for start, end in about["spans"]),
        phrase_ids=tuple(about["phrase_ids"]),
        phrase_tags=tuple(tuple(tags) for tags in about["phrase_tags"]),
    )

    def floats(name: str) -> Tensor:
        bits = tensor(f"{prefix}{name}")
        return bits.view(torch.bfloat16) if about["dtype"] == "bfloat16" else bits

    hidden: tuple[Tensor, ...] = ()
    if f"{prefix}hidden" in names:
        hidden = floats("hidden").split(about["tokens"], dim=1)
    likelihood: tuple[Tensor, ...] = ()
    if f"{prefix}log_probabilities" in names:
        likelihood = tensor(f"{prefix}log_probabilities").split(about["tokens"])
    image = None
    if about["side"] is not None:
        image = EncodedImage(floats("image"), Frame(size, about["side"]))
    masks = _masks(tensor(f"{prefix}masks"), size)
    features = PhraseFeatures(floats("maps"), tuple(about["box"]), hidden, likelihood)
    return ExtractedSample(annotation, features, masks, image)


def _masks(packed: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
    bits = np.unpackbits(packed.numpy(), axis=1, count=size[0] * size[1])
    return bits.reshape(-1, *size).astype(np.bool_)
