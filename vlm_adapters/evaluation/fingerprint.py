"""What the records of a run depend on, written down so that two runs can be told apart."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Self

import torch

from vlm_adapters import __version__
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.uri import read_named
from vlm_adapters.embedded import alias_of
from vlm_adapters.grounding.base import Grounder

PACKAGES = ("torch", "transformers", "numpy", "pillow", "segment-anything")
"""Whose versions are written down, beside Python's and our own."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a person asks for.

    Attributes:
        model: As `load_grounder` takes it.
        data: As `open_dataset` takes it.
        protocol: A key of `PROTOCOLS`.
        sentences: Which sentences of an object count, where the data set has several: `all` or `first`.
        method: As `load_grounder` takes it.
        profile: File of a head profile.
        sam: Checkpoint file of a Segment Anything model.
        device: Where the model lives.
        dtype: Precision of its weights.
        attn_implementation: Kernel of its attention; None leaves it to transformers.
        quantization: `nf4` or `int8`; None takes the weights as they are.
        batch: Prompts that are computed at once.
        seed: Of the bootstrap and of the cases shown at random.
    """

    model: str
    data: str
    protocol: str
    sentences: str | None = None
    method: str = "auto"
    profile: str | None = None
    sam: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    attn_implementation: str | None = None
    quantization: str | None = None
    batch: int = 8
    seed: int = 0

    @property
    def command(self) -> str:
        """The command that asks for the same, less where it writes to."""
        options = {name: value for name, value in asdict(self).items() if name not in ("model", "data")}
        told = [
            part
            for name, value in options.items()
            if value is not None
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        return shlex.join(["adapters", "evaluate", self.model, self.data, *told])


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What the records depend on: two runs that agree in it differ by the rounding of their machines at most.

    Attributes:
        model: As it was asked for.
        checkpoint: Of the backbone.
        revision: Its commit, where known.
        options: Of the adapter; they set how fine the grid is.
        method: What finds the masks, in words.
        digests: Digests of weights, by name: backbone, decoder, head profile, Segment Anything.
        data: `Dataset.source`.
        data_fingerprint: `Dataset.fingerprint`.
        samples: How many it has.
        protocol: A key of `PROTOCOLS`.
        sentences: Which sentences of an object count; None where the data set has one text for a sample.
        batch: Prompts that are computed at once; it changes the rounding.
        device: Kind of device: cpu, cuda, ...
        dtype: Precision of the backbone.
        attn_implementation: As it was asked for.
        quantization: As it was asked for.
        versions: Of the packages.
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
    batch: int
    device: str
    dtype: str
    versions: Mapping[str, str]
    attn_implementation: str | None = None
    quantization: str | None = None

    @classmethod
    def of(cls, settings: Settings, grounder: Grounder, dataset: Dataset) -> Self:
        """Write down a run that is about to start."""
        info = grounder.adapter.info
        return cls(
            model=settings.model,
            checkpoint=alias_of(info.checkpoint) or info.checkpoint,
            revision=info.revision,
            options=dict(info.options),
            method=grounder.description,
            digests={**({"backbone": info.fingerprint} if info.fingerprint else {}), **grounder.fingerprint()},
            data=dataset.source,
            data_fingerprint=dataset.fingerprint(),
            samples=len(dataset),
            protocol=settings.protocol,
            sentences=None if (said := read_named(dataset.source)[1].get("sentences")) is None else str(said),
            batch=settings.batch,
            device=torch.device(info.device).type,
            dtype=info.dtype,
            versions=installed(),
            attn_implementation=settings.attn_implementation,
            quantization=settings.quantization,
        )

    def differences(self, written: Mapping[str, Any]) -> list[str]:
        """In what pins that were written as JSON differ from these, as `name: theirs there, ours here`."""
        own = json.loads(json.dumps(asdict(self)))
        return [
            f"{name}: {written.get(name)!r} there, {own.get(name)!r} here"
            for name in {**own, **written}
            if own.get(name) != written.get(name)
        ]


def installed() -> dict[str, str]:
    """Versions of Python, this library and the packages that compute."""
    return {
        "vlm-adapters": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
