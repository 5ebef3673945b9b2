"""What every command prints with `--json`, as types: those of the library, and what a command adds to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict, override

from vlm_adapters.bulk.formats import FailedItem
from vlm_adapters.data.check import DataReport
from vlm_adapters.discovery.model import ModelReport as DiscoveredModel
from vlm_adapters.evaluation.card import Card
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.inspection.adapter import AdapterReport
from vlm_adapters.inspection.bench.measure import Section
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.doctor import Diagnosis
from vlm_adapters.inspection.interface import InterfaceReport
from vlm_adapters.inspection.model import ModelReport
from vlm_adapters.output.attention import AttentionReport
from vlm_adapters.output.exports import ShownAnswer, ShownGrounding
from vlm_adapters.testing.matrix import SuiteReport
from vlm_adapters.testing.runner import CheckResult
from vlm_adapters.training.cache.forecast import Forecast

if TYPE_CHECKING:
    from collections.abc import Mapping


class ListedAdapter(TypedDict):
    """An adapter; `state` is `ready`, `needs WHAT`, `broken: WHY` or `unsupported: WHY`."""

    name: str | None
    plugin: str | None
    distribution: str | None
    version: str | None
    state: str
    checkpoints: list[str]


class ManyImagesRun(TypedDict):
    """A finished run over many images: its folder, how many there were, and which could not be used."""

    folder: str
    items: int
    bytes: int
    failed: list[FailedItem]


class GroundedImage(ShownGrounding):
    """A grounding, and the files that were written."""

    files: list[str]


class GroundedAnswer(ShownGrounding):
    """A grounding of an answer, and the folder of its files."""

    folder: str


class PrintedTurn(TypedDict):
    """A turn of a conversation: a line for each."""

    question: str
    answer: ShownAnswer | None
    groundings: list[GroundedAnswer]


class BuiltCache(TypedDict):
    """A cache, and the samples that were left out with the reason."""

    folder: str
    data: str
    samples: int
    phrases: int
    bytes: int
    left_out: list[str]


class TrainedRun(TypedDict):
    """Where a run is."""

    out: str
    step: int
    total_steps: int
    best_step: int | None
    best_mean_iou: float | None


class WrittenProfile(HeadProfile):
    """A head profile, and its file."""

    file: str


@dataclass(frozen=True)
class PrintedDiagnosis(Diagnosis):
    """An installation, and what has to be installed or renewed."""

    faults: tuple[str, ...] = field()  # which hides the property


class BenchReport(TypedDict):
    """What was measured, where, when and with what."""

    command: str
    date: str
    machine: str
    threads: int
    versions: dict[str, str]
    settings: BenchSettings
    sections: list[Section]


class Failure(TypedDict):
    """What went wrong: the type of the error, or UsageError, and its message."""

    type: str
    message: str


class PrintedError(TypedDict):
    """The last line of any command that fails."""

    error: Failure


PRINTED: Mapping[str, Any] = {
    "list": list[ListedAdapter],
    "info": AdapterReport | ModelReport,
    "ground": GroundedImage | ManyImagesRun,
    "chat": PrintedTurn,
    "attend": AttentionReport | ManyImagesRun,
    "extract": ManyImagesRun,
    "evaluate": Card,
    "calibrate": WrittenProfile,
    "probe": InterfaceReport,
    "check": list[CheckResult] | list[SuiteReport],
    "discover": DiscoveredModel,
    "data check": DataReport,
    "plan": list[Forecast],
    "cache build": list[BuiltCache],
    "train": TrainedRun | dict[str, str],
    "bench": BenchReport,
    "doctor": PrintedDiagnosis,
    "error": PrintedError,
}
"""The type of what every command prints, and of an error."""


class _Strict(GenerateJsonSchema):
    """Schemas that allow no other keys than those that they list."""

    @override
    def model_schema(self, schema: Any) -> Any:
        return {**super().model_schema(schema), "additionalProperties": False}

    @override
    def dataclass_schema(self, schema: Any) -> Any:
        return {**super().dataclass_schema(schema), "additionalProperties": False}

    @override
    def typed_dict_schema(self, schema: Any) -> Any:
        return {**super().typed_dict_schema(schema), "additionalProperties": False}


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what a command prints.

    Args:
        name: A key of `PRINTED`.
    """
    schema = TypeAdapter(PRINTED[name]).json_schema(mode="serialization", schema_generator=_Strict)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
