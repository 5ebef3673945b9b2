"""The `refs(*.p)` files of RefCOCO, RefCOCO+ and RefCOCOg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_adapters.data.dataset import Problem
from vlm_adapters.data.formats.coco_files import Instances, identity
from vlm_adapters.data.formats.plain_pickle import read_plain_pickle
from vlm_adapters.errors import DataError


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that distinguishes an object from the others.

    Attributes:
        id: The `sent_id` of the file.
        text: The `raw` of the file in lower case, without white space around it.
    """

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Ref:
    """An object and the sentences about it.

    Attributes:
        id: The `ref_id` of the file.
        annotation: The id of its mask in `instances.json`.
        image: The id of its image.
        entry: Index of its entry in the file, from 0.
        sentences: The sentences that are not blank.
    """

    id: int
    annotation: int
    image: int
    entry: int
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Refs:
    """The refs of one split.

    Attributes:
        path: The file.
        split_by: Who made the splits: `unc`, `umd`, `google`.
        refs: The refs in the order of the file, each with a sentence, an image and an annotation.
        problems: Entries and sentences that were left out.
    """

    path: Path
    split_by: str
    refs: tuple[Ref, ...]
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, folder: Path, split: str, split_by: str | None, instances: Instances) -> Refs:
        """Read the refs of a split.

        Args:
            folder: The folder with `refs(*.p)`.
            split: The split, such as `val`.
            split_by: Who made the splits; None if there is only one file of refs.
            instances: The images and annotations that the refs refer to.

        Raises:
            DataError: The file is missing, does not hold a list, or has no such split.
        """
        path = _file(folder, split_by)
        content = read_plain_pickle(path)
        if not isinstance(content, list):
            raise DataError(f"{path} holds a {type(content).__name__}, not a list of refs. Download it again.")
        splits = {entry.get("split") for entry in content if isinstance(entry, dict)}
        if split not in splits:
            names = ", ".join(sorted(map(str, splits))) or "none"
            raise DataError(f"{path} has no split {split!r}. Its splits are {names}.")
        refs: list[Ref] = []
        problems: list[Problem] = []
        for index, entry in enumerate(content):
            if isinstance(entry, dict) and entry.get("split") != split:
                continue
            try:
                ref = _ref(index, entry, instances)
            except DataError as error:
                problems.append(Problem(f"{path}[{index}]", str(error)))
                continue
            problems += (Problem(f"{path}[{index}]", message) for message in _blank(entry))
            if ref.sentences:
                refs.append(ref)
        return cls(path, path.name[len("refs(") : -len(").p")], tuple(refs), tuple(problems))


def _file(folder: Path, split_by: str | None) -> Path:
    found = sorted(folder.glob("refs(*).p"))
    matching = [path for path in found if split_by is None or path.name == f"refs({split_by}).p"]
    if len(matching) == 1:
        return matching[0]
    needed = "one file refs(*).p" if split_by is None else f"refs({split_by}).p"
    names = ", ".join(path.name for path in found) or "none"
    raise DataError(f"{folder} needs {needed}, found: {names}. Choose one with split_by, such as split_by=unc.")


def _ref(index: int, entry: object, instances: Instances) -> Ref:
    if not isinstance(entry, dict) or not entry.keys() >= {"ref_id", "ann_id", "image_id", "sentences"}:
        raise DataError("It is not a ref with ref_id, ann_id, image_id and sentences. Download the file again.")
    if not isinstance(entry["sentences"], list) or not entry["sentences"]:
        raise DataError("It has no sentences. Download the file again.")
    ref = Ref(
        identity(entry["ref_id"]),
        identity(entry["ann_id"]),
        identity(entry["image_id"]),
        index,
        tuple(Sentence(identity(sentence["sent_id"]), text) for sentence, text in _sentences(entry) if text),
    )
    annotation = instances.annotations.get(ref.annotation)
    if annotation is None:
        raise DataError(f"Its annotation {ref.annotation} is not in {instances.path}. Use files of one release.")
    if annotation.image != ref.image or ref.image not in instances.images:
        raise DataError(
            f"Its image {ref.image} is not that of annotation {ref.annotation} in {instances.path} "
            f"({annotation.image}), or not listed there. Use files of one release."
        )
    return ref


def _sentences(entry: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The sentences of an entry, each with its text; the text of a blank one is empty."""
    for sentence in entry["sentences"]:
        if not (isinstance(sentence, dict) and "sent_id" in sentence and isinstance(sentence.get("raw"), str)):
            raise DataError("A sentence of it has no sent_id, or its raw is not a string. Download the file again.")
        yield sentence, sentence["raw"].lower().strip()


def _blank(entry: Mapping[str, Any]) -> Iterator[str]:
    for sentence, text in _sentences(entry):
        if not text:
            yield f"Sentence {sentence['sent_id']} is blank: {sentence['raw']!r}. Remove it."
