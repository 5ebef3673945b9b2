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
    """What someone said to tell an object from the others.

    Attributes:
        id: `sent_id`.
        text: `raw` in lower case, without white space around it.
    """

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Ref:
    """An object and what was said of it.

    Attributes:
        id: `ref_id`.
        annotation: Id of its mask in `instances.json`.
        image: Id of its image.
        entry: Where it stands in the file, from 0.
        sentences: None is blank.
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
        refs: In the order of the file, each with a sentence, an image and an annotation.
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
            folder: Where `refs(*.p)` stands.
            split: Such as `val`.
            split_by: Whose splits; None if there is only one file of refs.
            instances: The images and annotations they refer to.

        Raises:
            DataError: The file is missing, no list, or has no such split.
        """
        path = _file(folder, split_by)
        content = read_plain_pickle(path)
        if not isinstance(content, list):
            raise DataError(f"{path} holds a {type(content).__name__}, not a list of refs. Download it again.")
        splits = {entry.get("split") for entry in content if isinstance(entry, dict)}
        if split not in splits:
            told = ", ".join(sorted(map(str, splits))) or "none"
            raise DataError(f"{path} has no split {split!r}. Its splits are {told}.")
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
            problems += (Problem(f"{path}[{index}]", told) for told in _blank(entry))
            if ref.sentences:
                refs.append(ref)
        return cls(path, path.name[len("refs(") : -len(").p")], tuple(refs), tuple(problems))


def _file(folder: Path, split_by: str | None) -> Path:
    found = sorted(folder.glob("refs(*).p"))
    if split_by is not None:
        found = [path for path in found if path.name == f"refs({split_by}).p"]
    if len(found) == 1:
        return found[0]
    there = ", ".join(path.name for path in sorted(folder.glob("refs(*).p"))) or "none"
    wanted = "one file refs(*).p" if split_by is None else f"refs({split_by}).p"
    raise DataError(f"{folder} needs {wanted}; there: {there}. Say whose splits with split_by, such as split_by=unc.")


def _ref(index: int, entry: object, instances: Instances) -> Ref:
    if not isinstance(entry, dict) or not entry.keys() >= {"ref_id", "ann_id", "image_id", "sentences"}:
        raise DataError("It is no ref with ref_id, ann_id, image_id and sentences. Download the file again.")
    if not isinstance(entry["sentences"], list) or not entry["sentences"]:
        raise DataError("It has no sentences. Download the file again.")
    ref = Ref(
        identity(entry["ref_id"]),
        identity(entry["ann_id"]),
        identity(entry["image_id"]),
        index,
        tuple(Sentence(identity(said["sent_id"]), text) for said, text in _said(entry) if text),
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


def _said(entry: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The sentences of an entry, each with its text; the text of a blank one is empty."""
    for said in entry["sentences"]:
        if not (isinstance(said, dict) and "sent_id" in said and isinstance(said.get("raw"), str)):
            raise DataError("A sentence of it has no sent_id, or its raw is no text. Download the file again.")
        yield said, said["raw"].lower().strip()


def _blank(entry: Mapping[str, Any]) -> Iterator[str]:
    for said, text in _said(entry):
        if not text:
            yield f"Sentence {said['sent_id']} is blank: {said['raw']!r}. Remove it."
