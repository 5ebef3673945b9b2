"""The one door to data sets: `open_dataset`."""

from __future__ import annotations

import difflib
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic import ValidationError

from vlm_adapters.data.config import KINDS, FileKeys, Keys
from vlm_adapters.data.dataset import Dataset, Subset
from vlm_adapters.data.formats.folder import SAMPLES_FILE
from vlm_adapters.data.stable_random import draw_indices
from vlm_adapters.data.uri import Value, read_named, write_named
from vlm_adapters.errors import DataError

DataNamed = str | os.PathLike[str] | Mapping[str, object]
"""What names a data set: see `open_dataset`."""

_YAML = (".yaml", ".yml")


def open_dataset(named: DataNamed) -> Dataset:
    """Open a data set. Its entries are read once, and no image is opened.

    Args:
        named: One of

            * `"kind:key=value,key=value"`, such as `"scenes:count=500,seed=4"`. Kinds and keys are those of
              `vlm_adapters.data.config`; a value with commas stands in double quotes.
            * The path of a folder in the plain form (`vlm_adapters.data.formats.folder`).
            * The path of a `.yaml` file with `kind` and its keys, or a mapping of them.

            Paths are seen from the working folder.

    Raises:
        DataError: There is no such set or key, a file cannot be read, nothing is left of the set, or an entry is
            broken and `broken` is not `skip`.
    """
    dataset = _opened(_keys(named))
    if dataset.problems and not dataset.skips_broken:
        first = dataset.problems[0]
        raise DataError(
            f"{first.place}: {first.told} Broken entries: {len(dataset.problems)}. `adapters data check` lists them; "
            "broken=skip leaves them out."
        )
    if not len(dataset):
        raise DataError(f"Nothing is left of the data set {dataset.source}. Check its files, split, and without.")
    return dataset


def open_skipping(named: DataNamed) -> Dataset:
    """Open a data set as if `broken=skip` had been said, even if nothing is left of it.

    Raises:
        DataError: There is no such set or key, or a file cannot be read.
    """
    dataset = _opened(_keys(named))
    dataset.skips_broken = True
    return dataset


class _Chosen(Subset):
    """What the keys of all sets from files leave of one."""

    def __init__(self, whole: Dataset, indices: Sequence[int], told: Mapping[str, Value | None]) -> None:
        super().__init__(whole, indices)
        self._told = told

    @property
    def source(self) -> str:
        """See `Dataset`."""
        kind, keys = read_named(self._whole.source)
        return write_named(kind, {**keys, **{key: value for key, value in self._told.items() if value is not None}})

    def at_epoch(self, epoch: int) -> Dataset:
        """See `Dataset`."""
        there = _Chosen(self._whole.at_epoch(epoch), self._indices, self._told)
        there.skips_broken = self.skips_broken
        return there


def _opened(keys: Keys) -> Dataset:
    with _no_collections():
        whole = keys.open()
    if not isinstance(keys, FileKeys):
        return whole
    left_out = [open_dataset(named) for named in keys.without]
    told: dict[str, Value | None] = {
        "limit": keys.limit,
        "seed": keys.seed,
        "without": [other.source for other in left_out] or None,
        "broken": None if keys.broken == "error" else keys.broken,
    }
    if not any(value is not None for value in told.values()):
        return whole
    dataset = _Chosen(whole, _indices(whole, keys, left_out), told)
    dataset.skips_broken = keys.broken == "skip"
    return dataset


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep Python from looking for garbage: a million entries leave none, and looking takes most of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _indices(whole: Dataset, keys: FileKeys, left_out: Sequence[Dataset]) -> Sequence[int]:
    indices: Sequence[int] = range(len(whole))
    if left_out:
        images = {other.annotation(index).image_id for other in left_out for index in range(len(other))}
        indices = [index for index in indices if whole.annotation(index).image_id not in images]
    if keys.limit is None:
        return indices
    return indices[: keys.limit] if keys.seed is None else draw_indices(keys.seed, indices, keys.limit)


def _keys(named: DataNamed) -> Keys:
    """Whatever names a set, as the keys of its kind."""
    if isinstance(named, Mapping):
        keys = {str(key): value for key, value in named.items()}
        return _checked(keys.pop("kind", None), keys)
    text = os.fspath(named)
    if Path(text).is_dir():
        return _checked("folder", {"path": text})
    if text.endswith(_YAML):
        return _keys(_read_yaml(Path(text)))
    if ":" not in text:
        raise DataError(
            f"There is no data set {text!r}: no folder with {SAMPLES_FILE}, no .yaml file, and no "
            f"kind:key=value,key=value. Kinds are {', '.join(KINDS)}."
        )
    kind, told = read_named(text)
    return _checked(kind, dict(told))


def _read_yaml(path: Path) -> Mapping[str, object]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}. Check the file.") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} does not name a data set. Give it kind and its keys, a line for each.")
    return content


def _checked(kind: object, told: Mapping[str, object]) -> Keys:
    if not isinstance(kind, str) or kind not in KINDS:
        wrong = "A data set is named without its kind" if kind is None else f"There is no kind of data set {kind!r}"
        raise DataError(f"{wrong}.{_meant(str(kind), KINDS)} Use one of {', '.join(KINDS)}.")
    try:
        return KINDS[kind].model_validate(told)
    except ValidationError as error:
        raise DataError(_mistake(kind, error)) from None


def _mistake(kind: str, error: ValidationError) -> str:
    """The first mistake, in one sentence, and what to do."""
    fields = KINDS[kind].model_fields
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key is missing, too
    key = ".".join(map(str, first["loc"]))
    keys = ", ".join(f"{name} (needed)" if field.is_required() else name for name, field in fields.items())
    if first["type"] == "extra_forbidden":
        return f"A data set of {kind} has no key {key!r}.{_meant(key, fields)} Its keys are {keys}."
    if first["type"] == "missing":
        return f"A data set of {kind} needs the key {key!r}. Its keys are {keys}."
    if not key:
        return f"The keys of {kind} do not fit: {first['msg'].removeprefix('Value error, ')}."
    return f"The key {key} of {kind} is {first['input']!r}: {first['msg'][:1].lower()}{first['msg'][1:]}."


def _meant(word: str, words: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
