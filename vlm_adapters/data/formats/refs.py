"""The `refs(*.p)` files of RefCOCO, RefCOCO+ and RefCOCOg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlm_adapters.data.access import ImageFolder
from vlm_adapters.data.dataset import Problem, ProblemList
from vlm_adapters.data.documents import usable_text
from vlm_adapters.data.formats.by_id import identity
from vlm_adapters.data.formats.coco_files import Instances, image_path
from vlm_adapters.data.formats.plain_pickle import read_plain_pickle
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits, shown


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
    def read(cls, folder: Path, split: str, split_by: str | None, instances: Instances, images: ImageFolder) -> Refs:
        """Read the refs of a split.

        Args:
            folder: The folder with `refs(*.p)`.
            split: The split, such as `val`.
            split_by: Who made the splits; None if there is only one file of refs.
            instances: The images and annotations that the refs refer to.
            images: The folder of the images, out of which no name may lead.

        Raises:
            DataError: The file is missing, does not hold a list, or has no such split.
        """
        path = _file(folder, split_by)
        content = read_plain_pickle(path, instances.limits)
        if not isinstance(content, list):
            raise DataError(f"{path} holds a {type(content).__name__}, not a list of refs. Download it again.")
        splits = {name for entry in content if isinstance(entry, dict) and isinstance(name := entry.get("split"), str)}
        if split not in splits:
            names = ", ".join(shown(name)[1:-1] for name in sorted(splits)[:20]) or "none"
            raise DataError(f"{path} has no split {shown(split)}. Its splits are {names}.")
        refs: list[Ref] = []
        problems = ProblemList(path, instances.limits.max_problems)
        ids = _SeenIds()
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
        return cls(path, path.name[len("refs(") : -len(").p")], tuple(refs), problems.as_tuple())


class _SeenIds:
    """The ids of refs and sentences, with the entries that had them first."""

    def __init__(self) -> None:
        self._refs: dict[int, int] = {}
        self._sentences: dict[int, int] = {}

    def check_ref(self, number: int, index: int) -> None:
        if (first := self._refs.setdefault(number, index)) != index:
            raise DataError(
                f"Its ref_id {number} is already that of entry [{first}], so entries [{first}] and [{index}] cannot be "
                "kept apart. Give every ref its own."
            )

    def check_sentence(self, number: int, index: int) -> None:
        if number in self._sentences:
            raise DataError(
                f"The sent_id {number} of a sentence of entry [{index}] is already that of one of entry "
                f"[{self._sentences[number]}]. Give every sentence its own."
            )
        self._sentences[number] = index


def _file(folder: Path, split_by: str | None) -> Path:
    found = sorted(folder.glob("refs(*).p"))
    matching = [path for path in found if split_by is None or path.name == f"refs({split_by}).p"]
    if len(matching) == 1:
        return matching[0]
    needed = "one file refs(*).p" if split_by is None else f"refs({split_by}).p"
    names = ", ".join(shown(path.name)[1:-1] for path in found[:20]) or "none"
    if not found and any(folder.glob("grefs(*).json")):
        names = "none, but grefs(*).json of gRefCOCO, which kind refcoco does not read"
    raise DataError(f"{folder} needs {needed}, found: {names}. Choose one with split_by, such as split_by=unc.")


def _ref(index: int, entry: object, ids: _SeenIds, limits: Limits) -> tuple[Ref, list[str]]:
    """Read a ref, and list the mistakes for which sentences were left out of it."""
    if not isinstance(entry, dict) or not entry.keys() >= {"ref_id", "ann_id", "image_id", "sentences"}:
        raise DataError("It is not a ref with ref_id, ann_id, image_id and sentences. Download the file again.")
    if not isinstance(entry["sentences"], list) or not entry["sentences"]:
        raise DataError("It has no sentences. Download the file again.")
    if isinstance(entry["ann_id"], list) or entry["ann_id"] in (-1, None):
        raise DataError(
            f"Its ann_id is {shown(entry['ann_id'])}, as in gRefCOCO, whose refs name several objects or none. Kind "
            "refcoco reads refs with one object each."
        )
    number, annotation, image = (identity(entry[name]) for name in ("ref_id", "ann_id", "image_id"))
    sentences = [_sentence(sentence, limits) for sentence in entry["sentences"]]
    ids.check_ref(number, index)
    kept, mistakes = [], []
    for sentence, found in zip(sentences, entry["sentences"], strict=True):
        try:
            ids.check_sentence(sentence.id, index)
        except DataError as error:
            mistakes.append(str(error))
            continue
        if sentence.text:
            kept.append(sentence)
        else:
            mistakes.append(f"Sentence {sentence.id} is blank: {shown(found['raw'])}. Remove it.")
    return Ref(number, annotation, image, index, tuple(kept)), mistakes


def _sentence(sentence: object, limits: Limits) -> Sentence:
    if not (isinstance(sentence, dict) and "sent_id" in sentence and isinstance(sentence.get("raw"), str)):
        raise DataError("A sentence of it has no sent_id, or its raw is not a string. Download the file again.")
    return Sentence(identity(sentence["sent_id"]), usable_text(sentence["raw"].lower().strip(), limits))


def _check_named(ref: Ref, instances: Instances, images: ImageFolder) -> None:
    if ref.annotation not in instances.annotations:
        raise DataError(f"Its annotation {ref.annotation} is not in {instances.path}. Use files of one release.")
    annotation = instances.annotations[ref.annotation]
    if annotation.image != ref.image or ref.image not in instances.images:
        raise DataError(
            f"Its image {ref.image} is not that of annotation {ref.annotation} in {instances.path} "
            f"({annotation.image}), or not listed there. Use files of one release."
        )
    image_path(images, instances.images, ref.image)
