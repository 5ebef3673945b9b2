"""The keys that kinds of data sets have in common; `vlm_adapters.data.config` has those of every kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, field_validator, model_validator

from vlm_adapters.data.access import DEFAULT_ACCESS, Access
from vlm_adapters.data.dataset import Dataset


class DatasetConfig(BaseModel, ABC):
    """The keys of one kind of data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        """Open the set with all its samples, reaching no further than `access` allows."""


class FileDatasetConfig(DatasetConfig):
    """The keys that all kinds of data sets read from files have in common.

    Attributes:
        limit: Largest number of samples to take of those that `without` leaves: the first ones, or by `seed`.
        seed: Seed that chooses which samples `limit` takes; they keep their order.
        without: Data sets in any form that `open_dataset` takes; samples whose image occurs in one are dropped.
        broken: What happens to entries and samples that cannot be used: `error`, or `skip` to leave them out and count
            them.
    """

    limit: PositiveInt | None = None
    seed: NonNegativeInt | None = None
    without: tuple[str | dict[str, object], ...] = ()
    broken: Literal["error", "skip"] = "error"

    @field_validator("without", mode="before")
    @classmethod
    def _one_or_several(cls, source: object) -> object:
        return (source,) if isinstance(source, str | dict) else source

    @model_validator(mode="after")
    def _seed_is_used(self) -> Self:
        if self.seed is not None and not self.draws:
            raise ValueError("seed draws samples for limit, and there is no limit: give both, or neither")
        return self

    @property
    def draws(self) -> bool:
        """Whether anything is drawn at random, by `seed`."""
        return self.limit is not None
