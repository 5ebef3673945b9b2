"""The files of refs: `refs(*.p)` of RefCOCO, RefCOCO+ and RefCOCOg, and `grefs(*).json` of gRefCOCO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_adapters.data.access import ImageFolder
from vlm_adapters.data.dataset import Problem, ProblemList
from vlm_adapters.data.documents import read_json, usable_text
from vlm_adapters.data.formats.by_id import identity
from vlm_adapters.data.formats.coco_files import Instances, image_path
from vlm_adapters.data.formats.plain_pickle import read_plain_pickle
from vlm_adapters.data.formats.referring import Ref, Sentence
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits, shown


@dataclass(frozen=True)
class RefsForm:
    """The published form of the refs of a kind of data set.

    Attributes:
        kind: The kind, as `open_dataset` names it.
        prefix: The name of the file before `(unc)`.
        suffix: The name of the file after it.
        read: Reads the file.
        has_one_target: Whether every ref has one target; otherwise it has any number of them.
    """

    kind: str
    prefix: str
    suffix: str
    read: Callable[[Path, Limits], object]
    has_one_target: bool

    def name(self, split_by: str) -> str:
        """The name of the file with the splits of one author."""
        return f"{self.prefix}({split_by}){self.suffix}"

    def split_by(self, path: Path) -> str:
        """Whose splits a file has."""
        return path.name[len(self.prefix) + 1 : -len(self.suffix) - 1]

    def file(self, folder: Path, split_by: str | None) -> Path:
        """Find the file of refs in a folder.

        Raises:
            DataError: It is missing, or `split_by` is None and there are several.
        """
        found = sorted(folder.glob(self.name("*")))
        matching = [path for path in found if split_by is None or path.name == self.name(split_by)]
        if len(matching) == 1:
            return matching[0]
        needed = f"one file {self.name('*')}" if split_by is None else self.name(split_by)
        names = ", ".join(shown(path.name)[1:-1] for path in found[:20]) or "none"
        for other in () if found else (REFCOCO, GREFCOCO):
            if any(folder.glob(other.name("*"))):
                names = f"none, but {other.name('*')}, which kind {other.kind} reads"
        raise DataError(f"{folder} needs {needed}, found: {names}. Choose one with split_by, such as split_by=unc.")


REFCOCO = RefsForm("refcoco", "refs", ".p", read_plain_pickle, has_one_target=True)
GREFCOCO = RefsForm("grefcoco", "grefs", ".json", read_json, has_one_target=False)


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
    def read(cls, path: Path, split: str, form: RefsForm, instances: Instances, images: ImageFolder) -> Refs:
        """Read the refs of a split.

        Args:
            path: The file.
            split: The split, such as `val`.
            form: The form of the file.
            instances: The images and annotations that the refs refer to.
            images: The folder of the images, out of which no name may lead.

        Raises:
            DataError: The file is missing, does not hold a list, or has no such split.
        """
        content = form.read(path, instances.limits)
        if not isinstance(content, list):
            raise DataError(f"{path} holds a {type(content).__name__}, not a list of refs. Download it again.")
        splits = {name for entry in content if isinstance(entry, dict) and isinstance(name := entry.get("split"), str)}
        if split not in splits:
            names = ", ".join(shown(name)[1:-1] for name in sorted(splits)[:20]) or "none"
            raise DataError(f"{path} has no split {shown(split)}. Its splits are {names}.")
        refs: list[Ref] = []
        problems = ProblemList(path, instances.limits.max_problems)
        ids = _SeenIds(form)
        for index, entry in enumerate(content):
            if isinstance(entry, dict) and entry.get("split") != split:
                continue
            mistakes: list[str] = []
            try:
                ref, mistakes = _ref(index, entry, ids, instances.limits)
                _check_named(ref, instances, images)
            except DataError as error:
                ref, mistakes = None, [*mistakes, str(error)]
            for mistake in mistakes:
                problems.add(f"{path}[{index}]", mistake)
            if ref and ref.sentences:
                refs.append(ref)
        return cls(path, form.split_by(path), tuple(refs), problems.as_tuple())


class _SeenIds:
    """The ids of refs and sentences, with the entries that had them first.

    Args:
        form: The form of the file; only where every ref has one target, no two sentences of the file share an id.
    """

    def __init__(self, form: RefsForm) -> None:
        self.form = form
        self._refs: dict[int, int] = {}
        self._sentences: dict[tuple[int | None, int], int] = {}

    def check_ref(self, number: int, index: int) -> None:
        if (first := self._refs.setdefault(number, index)) != index:
            raise DataError(
                f"Its ref_id {number} is already that of entry [{first}], so entries [{first}] and [{index}] cannot be "
                "kept apart. Give every ref its own."
            )

    def check_sentence(self, number: int, ref: int, index: int) -> None:
        key = (None if self.form.has_one_target else ref, number)
        if key in self._sentences:
            raise DataError(
                f"The sent_id {number} of a sentence of entry [{index}] is already that of one of entry "
                f"[{self._sentences[key]}]. Give every sentence its own."
            )
        self._sentences[key] = index


def _ref(index: int, entry: object, ids: _SeenIds, limits: Limits) -> tuple[Ref, list[str]]:
    """Read a ref, and list the mistakes for which sentences were left out of it."""
    if not isinstance(entry, dict) or not entry.keys() >= {"ref_id", "ann_id", "image_id", "sentences"}:
        raise DataError("It is not a ref with ref_id, ann_id, image_id and sentences. Download the file again.")
    if not isinstance(entry["sentences"], list) or not entry["sentences"]:
        raise DataError("It has no sentences. Download the file again.")
    annotations = _one_target(entry) if ids.form.has_one_target else _targets(entry)
    number, image = identity(entry["ref_id"]), identity(entry["image_id"])
    sentences = [_sentence(sentence, limits) for sentence in entry["sentences"]]
    ids.check_ref(number, index)
    kept, mistakes = [], []
    for sentence, found in zip(sentences, entry["sentences"], strict=True):
        try:
            ids.check_sentence(sentence.id, number, index)
        except DataError as error:
            mistakes.append(str(error))
            continue
        if sentence.text:
            kept.append(sentence)
        else:
            mistakes.append(f"Sentence {sentence.id} is blank: {shown(found['raw'])}. Remove it.")
    return Ref(number, annotations, image, index, tuple(kept)), mistakes


def _one_target(entry: Mapping[str, Any]) -> tuple[int, ...]:
    if isinstance(entry["ann_id"], list) or entry["ann_id"] in (-1, None):
        raise DataError(
            f"Its ann_id is {shown(entry['ann_id'])}, as in gRefCOCO, whose refs name several objects or none. Kind "
            "refcoco reads refs with one object each; kind grefcoco reads the others."
        )
    return (identity(entry["ann_id"]),)


def _targets(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of the targets, each once; none where the file has -1 alone."""
    found = entry["ann_id"] if isinstance(entry["ann_id"], list) else [entry["ann_id"]]
    numbers = tuple(dict.fromkeys(map(identity, found)))
    if not numbers or (-1 in numbers and len(numbers) > 1):
        raise DataError(
            f"Its ann_id is {shown(entry['ann_id'])}. Give the ids of all its targets, or [-1] where nothing in the "
            "image is meant."
        )
    targets = () if numbers == (-1,) else numbers
    if isinstance(flag := entry.get("no_target"), bool) and flag == bool(targets):
        raise DataError(
            f"Its no_target is {flag}, and its ann_id is {shown(entry['ann_id'])}. Download the file again."
        )
    return targets


def _sentence(sentence: object, limits: Limits) -> Sentence:
    if not (isinstance(sentence, dict) and "sent_id" in sentence and isinstance(sentence.get("raw"), str)):
        raise DataError("A sentence of it has no sent_id, or its raw is not a string. Download the file again.")
    return Sentence(identity(sentence["sent_id"]), usable_text(sentence["raw"].lower().strip(), limits))


def _check_named(ref: Ref, instances: Instances, images: ImageFolder) -> None:
    for number in ref.annotations:
        if number not in instances.annotations:
            raise DataError(f"Its annotation {number} is not in {instances.path}. Use files of one release.")
        annotation = instances.annotations[number]
        if annotation.image != ref.image or ref.image not in instances.images:
            raise DataError(
                f"Its image {ref.image} is not that of annotation {number} in {instances.path} "
                f"({annotation.image}), or not listed there. Use files of one release."
            )
    image_path(images, instances.images, ref.image)
