"""How an evaluation is set up, and the fingerprint by which two runs are distinguished."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Self

import torch

from vlm_adapters import __version__
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import OptionError
from vlm_adapters.evaluation.protocols import protocol_named, sentences_of
from vlm_adapters.grounding.base import Grounder

PACKAGES = ("torch", "transformers", "numpy", "pillow", "segment-anything")
"""Packages whose versions are recorded beside Python's and this library's."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a data set is evaluated, and how its model was loaded.

    Attributes:
        protocol: How the model is prompted: a key of `PROTOCOLS`.
        batch_size: Most samples per batch, and prompts that are computed at once.
        seed: Seed of the bootstrap.
        model: Name that the model was loaded by; None records its checkpoint.
        attn_implementation: Attention kernel that the model was loaded with; None if transformers chose it.
        quantization: Quantization that the model was loaded with; None for weights as they are.
        command: Command line that repeats the run; None if there is none.

    Raises:
        OptionError: There is no such protocol, or the batch size or the seed is out of range.
    """

    protocol: str
    batch_size: int = 8
    seed: int = 0
    model: str | None = None
    attn_implementation: str | None = None
    quantization: str | None = None
    command: str | None = None

    def __post_init__(self) -> None:
        protocol_named(self.protocol)
        if self.batch_size < 1 or self.seed < 0:
            raise OptionError(
                f"The batch size is {self.batch_size} and the seed {self.seed}. Give a batch size of at least 1 and a "
                "seed of at least 0."
            )


@dataclass(frozen=True, kw_only=True)
class RunFingerprint:
    """What the records of a run depend on: runs with equal fingerprints differ at most by rounding.

    Attributes:
        model: Name that the model was loaded by.
        checkpoint: Checkpoint of the backbone.
        revision: Commit of the checkpoint, where known.
        options: Options of the adapter; they set how fine the grid is.
        method: What finds the masks, in words.
        digests: Digests of the weights and of whatever else the masks depend on, by name.
        data: `Dataset.source`.
        data_fingerprint: `Dataset.fingerprint`.
        samples: Number of samples in the data set.
        protocol: A key of `PROTOCOLS`.
        sentences: Which sentences of an object count; None where the data set has one text per sample.
        batch_size: Prompts that are computed at once; it changes the rounding.
        device: Kind of device: cpu, cuda, ...
        dtype: Precision of the backbone.
        attn_implementation: Attention kernel that was asked for.
        quantization: Quantization that was asked for.
        versions: Versions of the packages that compute.
    """

    model: str
    checkpoint: str
    revision: str | None
    options: Mapping[str, object]
    method: str
    digests: Mapping[str, str]
    data: str
    data_fingerprint: str
    samples: int
    protocol: str
    sentences: str | None
    batch_size: int
    device: str
    dtype: str
    versions: Mapping[str, str]
    attn_implementation: str | None = None
    quantization: str | None = None

    @classmethod
    def of(cls, settings: EvaluationSettings, grounder: Grounder, dataset: Dataset) -> Self:
        """Take the fingerprint of a run that is about to start."""
        info = grounder.adapter.info
        checkpoint = alias_of(info.checkpoint) or info.checkpoint
        return cls(
            model=settings.model or checkpoint,
            checkpoint=checkpoint,
            revision=info.revision,
            options=dict(info.options),
            method=grounder.description,
            digests={**({"backbone": info.fingerprint} if info.fingerprint else {}), **grounder.fingerprint()},
            data=dataset.source,
            data_fingerprint=dataset.fingerprint(),
            samples=len(dataset),
            protocol=settings.protocol,
            sentences=sentences_of(dataset),
            batch_size=settings.batch_size,
            device=torch.device(info.device).type,
            dtype=info.dtype,
            versions=installed_versions(),
            attn_implementation=settings.attn_implementation,
            quantization=settings.quantization,
        )

    def differences(self, written: Mapping[str, Any]) -> list[str]:
        """List how a fingerprint that was written as JSON differs, as `name: its value there, our value here`."""
        here = json.loads(json.dumps(asdict(self)))
        return [
            f"{name}: {written.get(name)!r} there, {here.get(name)!r} here"
            for name in {**here, **written}
            if here.get(name) != written.get(name)
        ]


def installed_versions() -> dict[str, str]:
    """Versions of Python, this library and the packages that compute."""
    return {
        "vlm-adapters": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
