"""The one door to data sets: `open_dataset`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import ValidationError
from typing_extensions import override

from vlm_adapters.data.access import Access
from vlm_adapters.data.config import DATASET_CONFIGS
from vlm_adapters.data.dataset import Dataset, Subset
from vlm_adapters.data.dataset_config import DatasetConfig, FileDatasetConfig
from vlm_adapters.data.documents import read_yaml
from vlm_adapters.data.formats.folder import SAMPLES_FILE
from vlm_adapters.data.stable_random import stable_sample
from vlm_adapters.data.uri import Value, format_uri, parse_uri
from vlm_adapters.data.validated import first_mistake
from vlm_adapters.errors import DataError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, did_you_mean, shown

DatasetSource = str | os.PathLike[str] | Mapping[str, object] | DatasetConfig
"""Anything that names a data set: see `open_dataset`."""

_YAML = (".yaml", ".yml")


def open_dataset(source: DatasetSource, *, limits: Limits = DEFAULT_LIMITS, allow_outside: bool = False) -> Dataset:
    """Open a data set. Its entries are read once, and no image is opened.

    Args:
        source: One of

            * `"kind:key=value,key=value"`, such as `"scenes:count=500,seed=4"`. The kinds and their keys are those of
              `vlm_adapters.data.config`; a value with commas stands in double quotes.
            * The path of a folder in the plain form (`vlm_adapters.data.formats.folder`).
            * The path of a `.yaml` file with `kind` and its keys, or a mapping of them.
            * The keys that `read_config` read.

            Paths are relative to the working folder.
        limits: What is accepted of files, samples and images, such as `Limits(max_phrases=5000)`.
        allow_outside: Whether names in the files may lead out of the folder of the images, by `..`, an absolute path
            or a symbolic link. Such a set is not converted.

    Raises:
        DataError: There is no such set or key, a file cannot be read, nothing is left of the set, or an entry is
            broken and `broken` is not `skip`.

    Examples:
        >>> from vlm_adapters import open_dataset
        >>> scenes = open_dataset("scenes:count=3,seed=4")
        >>> len(scenes), scenes[0].image.size, scenes[0].masks.shape
        (3, (282, 312), (3, 312, 282))
    """
    return _checked(_Opening(Access(limits, allow_outside)).open(source))


def _checked(dataset: Dataset) -> Dataset:
    if dataset.problems and not dataset.skips_broken:
        first = dataset.problems[0]
        raise DataError(
            f"{first.place}: {first.message} Broken entries: {len(dataset.problems)}. `adapters data check` lists "
            "them; broken=skip leaves them out."
        )
    if not len(dataset):
        raise DataError(f"Nothing is left of the data set {dataset.source}. Check its files, split, and without.")
    return dataset


def open_skipping(source: DatasetSource, *, limits: Limits = DEFAULT_LIMITS, allow_outside: bool = False) -> Dataset:
    """Open a data set as `open_dataset` does with `broken=skip`, even if nothing is left of it.

    Args:
        source: As `open_dataset` takes it.
        limits: Likewise.
        allow_outside: Likewise.

    Raises:
        DataError: There is no such set or key, or a file cannot be read.
    """
    dataset = _Opening(Access(limits, allow_outside)).open(source)
    dataset.skips_broken = True
    return dataset


class _Selection(Subset):
    """The samples that `limit`, `seed` and `without` leave of a set."""

    def __init__(self, dataset: Dataset, indices: Sequence[int], values: Mapping[str, Value | None]) -> None:
        super().__init__(dataset, indices)
        self._values = values

    @property
    @override
    def source(self) -> str:
        kind, values = parse_uri(self._dataset.source)
        return format_uri(kind, {**values, **{key: value for key, value in self._values.items() if value is not None}})

    @override
    def at_epoch(self, epoch: int) -> Dataset:
        selection = _Selection(self._dataset.at_epoch(epoch), self._indices, self._values)
        selection.skips_broken = self.skips_broken
        return selection


class _Opening:
    """Opens a set and those that its `without` names, which are not followed without end.

    Args:
        access: How far all of them may reach.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._opened = 0

    def open(self, source: DatasetSource) -> Dataset:
        self._opened += 1
        if self._opened > self._access.limits.max_sets:
            raise DataError(
                f"More than {self._access.limits.max_sets} data sets belong to one, by `without`. Look for a set that "
                "leaves out itself."
            )
        config = read_config(source, self._access.limits)
        with _garbage_collection_paused():
            dataset = config.open(self._access)
        if not isinstance(config, FileDatasetConfig):
            return dataset
        excluded = [_checked(self.open(other)) for other in config.without]
        values: dict[str, Value | None] = {
            "limit": config.limit,
            "seed": config.seed,
            "without": [other.source for other in excluded] or None,
            "broken": None if config.broken == "error" else config.broken,
        }
        if not any(value is not None for value in values.values()):
            return dataset
        selection = _Selection(dataset, _indices(dataset, config, excluded), values)
        selection.skips_broken = config.broken == "skip"
        return selection


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pause the garbage collector: a million entries leave no garbage, and looking for it takes most of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _indices(dataset: Dataset, config: FileDatasetConfig, excluded: Sequence[Dataset]) -> Sequence[int]:
    indices: Sequence[int] = range(len(dataset))
    if excluded:
        images = {other.annotation(index).image_id for other in excluded for index in range(len(other))}
        indices = [index for index in indices if dataset.annotation(index).image_id not in images]
    if config.limit is None:
        return indices
    return indices[: config.limit] if config.seed is None else stable_sample(indices, config.limit, config.seed)


def read_config(source: DatasetSource, limits: Limits = DEFAULT_LIMITS) -> DatasetConfig:
    """Read the keys of a data set from anything that names it, without opening it.

    Raises:
        DataError: There is no such set or key.
    """
    if isinstance(source, DatasetConfig):
        return source
    if isinstance(source, Mapping):
        values = {str(key): value for key, value in source.items()}
        return _validated(values.pop("kind", None), values)
    text = os.fspath(source)
    if os.path.isdir(text):  # noqa: PTH112 - `Path.is_dir` raises where a name is too long
        return _validated("folder", {"path": text})
    if text.endswith(_YAML):
        return read_config(_read_yaml(text, limits), limits)
    if ":" not in text:
        raise DataError(
            f"There is no data set {shown(text, 200)}: it is neither a folder with {SAMPLES_FILE}, nor a .yaml file, "
            f"nor kind:key=value,key=value. Kinds are {', '.join(DATASET_CONFIGS)}."
        )
    kind, uri_values = parse_uri(text)
    return _validated(kind, dict(uri_values))


def change_config(config: DatasetConfig, changes: Mapping[str, object]) -> DatasetConfig:
    """Replace keys of a data set, checked like those of `open_dataset`.

    Raises:
        DataError: There is no such key, or a value does not fit.
    """
    kind = next(kind for kind, config_class in DATASET_CONFIGS.items() if type(config) is config_class)
    return _validated(kind, {**config.model_dump(exclude_unset=True), **changes})


def _read_yaml(path: str, limits: Limits) -> Mapping[str, object]:
    content = read_yaml(path, limits)
    if not isinstance(content, Mapping):
        raise DataError(f"{path} does not name a data set. Give it kind and its keys, a line for each.")
    return content


def _validated(kind: object, values: Mapping[str, object]) -> DatasetConfig:
    kinds = ", ".join(DATASET_CONFIGS)
    if kind is None:
        raise DataError(f"A data set is named without its kind. Use one of {kinds}.")
    if not isinstance(kind, str) or kind not in DATASET_CONFIGS:
        raise DataError(
            f"There is no kind of data set {shown(kind)}.{did_you_mean(shown(kind)[1:-1], DATASET_CONFIGS)} "
            f"Use one of {kinds}."
        )
    try:
        return DATASET_CONFIGS[kind].model_validate(values)
    except ValidationError as error:
        raise DataError(_mistake_message(kind, error)) from None


def _mistake_message(kind: str, error: ValidationError) -> str:
    """The first mistake in one sentence, and what to do."""
    fields = DATASET_CONFIGS[kind].model_fields
    mistake = first_mistake(error)
    keys = ", ".join(f"{name} (needed)" if field.is_required() else name for name, field in fields.items())
    if mistake.kind == "extra_forbidden":
        meant = did_you_mean(mistake.key, fields)
        return f"A data set of {kind} has no key {shown(mistake.key)}.{meant} Its keys are {keys}."
    if mistake.kind == "missing":
        return f"A data set of {kind} needs the key {shown(mistake.key)}. Its keys are {keys}."
    if not mistake.key:
        return f"The keys of {kind} do not fit together: {mistake.message}."
    reason = f"{mistake.message[:1].lower()}{mistake.message[1:]}"
    return f"The key {shown(mistake.key)[1:-1]} of {kind} is {shown(mistake.value)}: {reason}."
