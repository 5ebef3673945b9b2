"""The base of what is done with every image of many.

A task is a callable for whatever hands out batches as dicts of arrays, such as `map_batches` of Ray Data: it can be
pickled, and loads its model in the process that works, when the first batch comes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.bulk.formats import Row
from vlm_adapters.bulk.prompts import prompt_of
from vlm_adapters.errors import BackboneError, DataError, ImageError, PromptError
from vlm_adapters.prompt import PhraseLike, Prompt
from vlm_adapters.registry.loading import load_adapter

Array = NDArray[Any]

FAILURES = (ImageError, PromptError, DataError, BackboneError)
"""Errors that concern one image of many, which is recorded and skipped."""


@dataclass(frozen=True)
class Failure:
    """What keeps one image of many from being used.

    Attributes:
        message: What is wrong, and what to do.
    """

    message: str


class Task(ABC):
    """Something that is done with every image of many.

    Args:
        model: An embedded model, a checkpoint's folder or a hub id.
        text: The sentence for batches without a column `text`.
        phrases: Its phrases, for batches without a column `phrases`; None for all of it.
        options: Options of `load_adapter`, such as device and dtype.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    """Ending of the shards' files."""

    def __init__(
        self, model: str, *, text: str | None = None, phrases: Sequence[PhraseLike] | None = None, **options: Any
    ) -> None:
        self.model, self.text, self.phrases, self.options = model, text, phrases, options

    @cached_property
    def adapter(self) -> BackboneAdapter:
        """The backbone, loaded when it is first asked for."""
        return load_adapter(self.model, **self.options)

    @property
    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What the results depend on beside backbone and prompts, for JSON."""

    @abstractmethod
    def rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        """Run the model over a batch of prompts."""

    @abstractmethod
    def columns(self, rows: Sequence[Row | Failure]) -> dict[str, Array]:
        """The rows as columns of a batch; a failure has an empty value in each."""

    def prepare(self, prompts: Sequence[Prompt]) -> Callable[[], list[Row]]:
        """Do what can be done of `rows` before the model is free, and give the rest of it."""
        return partial(self.rows, prompts)

    def rows_or_failures(
        self, prompts: Sequence[Prompt], finish: Callable[[], list[Row]] | None = None
    ) -> list[Row | Failure]:
        """Run the model over a batch; where one of its prompts cannot be used, over each of them by itself.

        Args:
            prompts: The batch.
            finish: What `prepare` gave for it.

        Raises:
            BackboneError: The model failed for another reason than what it was given.
        """
        try:
            return [*(finish or partial(self.rows, prompts))()]
        except FAILURES as error:
            if len(prompts) > 1:
                return [row for prompt in prompts for row in self.rows_or_failures([prompt])]
            if isinstance(error, BackboneError) and self._can_preprocess(prompts[0]):
                raise
            return [Failure(str(error))]

    def _can_preprocess(self, prompt: Prompt) -> bool:
        try:
            self.adapter.preprocess([prompt])
        except BackboneError:
            return False
        return True

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Work on a batch of columns, none of whose rows is lost.

        Args:
            batch: `image` (paths, bytes of files, or arrays), and where there are such `text`, `phrases` (lists of
                words), `ask` and `ids`, as in `prompt_of`. Other columns are passed on.

        Returns:
            The columns but `image`, the results, and `error`: what is wrong with a row, empty where nothing is.
        """
        images = batch["image"]
        found: list[Row | Failure | Prompt] = []
        for index, image in enumerate(images):
            try:
                found.append(self._prompt(image, {name: column[index] for name, column in batch.items()}))
            except FAILURES as error:
                found.append(Failure(str(error)))
        prompts = [entry for entry in found if isinstance(entry, Prompt)]
        done = iter(self.rows_or_failures(prompts) if prompts else [])
        rows = [next(done) if isinstance(entry, Prompt) else entry for entry in found]
        errors = [row.message if isinstance(row, Failure) else "" for row in rows]
        passed_on = {name: np.asarray(column) for name, column in batch.items() if name != "image"}
        return {**passed_on, **self.columns(rows), "error": np.array(errors, dtype=object)}

    def _prompt(self, image: Any, values: Mapping[str, Any]) -> Prompt:
        source = image.item() if isinstance(image, np.generic) else image
        text, phrases, ids = values.get("text", self.text), values.get("phrases", self.phrases), values.get("ids")
        chosen = (
            None
            if phrases is None
            else [str(word) if isinstance(word, str) else (int(word[0]), int(word[1])) for word in phrases]
        )
        return prompt_of(source, None if text is None else str(text), chosen, values.get("ask"), ids)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is loaded, so that the callable can be sent to other processes."""
        return {name: value for name, value in vars(self).items() if name not in ("adapter", "grounder")}


def array_column(rows: Sequence[Row | Failure], name: str) -> Array:
    """The arrays of this name as a column; a row without it has an array of no elements."""
    arrays = [None if isinstance(row, Failure) else row.get(name) for row in rows]
    like = next(array for array in arrays if array is not None)
    column = np.empty(len(rows), dtype=object)
    for index, array in enumerate(arrays):
        column[index] = np.zeros((0,) * like.ndim, like.dtype) if array is None else array
    return column


def json_column(rows: Sequence[Row | Failure]) -> Array:
    """The rows as a column of JSON; a failure is an empty text."""
    return np.array(["" if isinstance(row, Failure) else json.dumps(row) for row in rows], dtype=object)
