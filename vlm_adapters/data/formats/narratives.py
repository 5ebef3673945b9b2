"""The files of Panoptic Narrative Grounding: narratives, and COCO's panoptic segments of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from vlm_adapters.data.access import ImageFolder
from vlm_adapters.data.dataset import Problem, ProblemList
from vlm_adapters.data.documents import read_json, usable_text
from vlm_adapters.data.formats.by_id import ById, identity
from vlm_adapters.data.formats.coco_files import blank_masks, entries, image_path, read_images
from vlm_adapters.data.formats.neighbours import form_of
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits, shown


class Utterance(NamedTuple):
    """An utterance of a narrative that names segments.

    Attributes:
        start: Index of its first character in the narrative.
        end: Index after its last character.
        segments: The ids of the segments; its mask is their union.
        tags: `thing` or `stuff` (every plural counts as thing), and `singular` or `plural`.
    """

    start: int
    end: int
    segments: tuple[int, ...]
    tags: tuple[str, str]


class Narrative(NamedTuple):
    """A spoken description of an image.

    Attributes:
        entry: Index of its entry in the file, from 0.
        image: The id of the image.
        text: The utterances in their order, with a space between.
        phrases: The utterances that name segments, at least one.
    """

    entry: int
    image: int
    text: str
    phrases: tuple[Utterance, ...]


@dataclass(frozen=True)
class Narratives:
    """All narratives of a file.

    Attributes:
        path: The file.
        narratives: The narratives that can be used, in the order of the file.
        panoptic: The images and their segments.
        problems: Narratives and phrases that were left out.
    """

    path: Path
    narratives: tuple[Narrative, ...]
    panoptic: Panoptic
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, path: Path, panoptic: Path, images: ImageFolder, segments: ImageFolder) -> Narratives:
        """Read narratives and the segments that they may name.

        Args:
            path: The file of the narratives, such as `png_coco_val2017.json`.
            panoptic: The file of the segments, such as `panoptic_val2017.json`.
            images: The folder of the images, out of which no name may lead.
            segments: The folder of the segments, likewise.

        Raises:
            DataError: A file is missing or not in the published form.
        """
        limits = images.access.limits
        listed = Panoptic(panoptic, read_json(panoptic, limits), limits)
        content = read_json(path, limits)
        if not isinstance(content, list):
            form = form_of(content)
            looks = f": it looks like {form}" if form else ""
            raise DataError(f"{path} does not hold a list of narratives{looks}. Give a png_coco_*.json.")
        narratives: list[Narrative] = []
        problems = ProblemList(path, limits.max_problems)
        for index, entry in enumerate(content):
            mistakes: list[str] = []
            try:
                narrative, mistakes = _narrative(index, entry, listed, limits)
                _check(narrative, limits)
                image_path(images, listed.images, narrative.image)
                listed.segments_path(segments, narrative.image)
            except DataError as error:
                narrative, mistakes = None, [*mistakes, str(error)]
            for mistake in mistakes:
                problems.add(f"{path}[{index}]", mistake)
            if narrative:
                narratives.append(narrative)
        return cls(path, tuple(narratives), listed, problems.as_tuple())


class _PanopticEntry(NamedTuple):
    file_name: str
    segments: Sequence[object]


class Panoptic:
    """A panoptic file: images, and the segments that narratives can name.

    Args:
        path: The file.
        content: What it holds.
        limits: What is accepted of it.

    Attributes:
        images: The images by their ids.

    Raises:
        DataError: It is of another form.
    """

    def __init__(self, path: Path, content: object, limits: Limits) -> None:
        self.path = path
        annotations, categories = entries(path, content, "annotations"), entries(path, content, "categories")
        self.images = read_images(path, content, replace(limits, max_pixels=max(1, limits.max_pixels // 2)))
        if (form := form_of(content)) and form.is_instances and annotations:
            raise DataError(f"{path} is not a panoptic file: it looks like {form}.")
        self._annotations = ById(path, "annotations", annotations, _panoptic_entry, "image_id")
        self._things = ById(path, "categories", categories, _is_thing)

    def segments_path(self, folder: ImageFolder, image: int) -> Path:
        """Find the path of the PNG with the segments of an image; links are not looked at.

        Raises:
            DataError: The image is not listed or unusable, or the name leads out of the folder.
        """
        name = self._annotations[image].file_name
        try:
            return folder.named(name)
        except DataError as error:
            raise DataError(f"The file_name of the segments of image {image} in {self.path}: {error}") from error

    def things_of(self, image: int) -> ById[bool]:
        """Map the ids of an image's segments to whether they are things.

        Raises:
            DataError: The image is not listed, not usable, or listed twice.
        """
        if image not in self.images or image not in self._annotations:
            raise DataError(f"Its image {image} is not in {self.path}. Use files of one release.")
        self.images[image]
        found = self._annotations[image].segments

        def read(entry: Mapping[str, Any]) -> bool:
            category = identity(entry.get("category_id"))
            if category not in self._things:
                raise DataError(f"{self.path} has no category {category} for a segment of image {image}.")
            return self._things[category]

        return ById(self.path, f"segments_info of image {image}", found, read)


def _panoptic_entry(entry: Mapping[str, Any]) -> _PanopticEntry:
    name, segments = entry.get("file_name"), entry.get("segments_info")
    if not isinstance(name, str) or not isinstance(segments, list):
        raise DataError("It has no file_name, or no list segments_info. Fix it in the file.")
    return _PanopticEntry(name, segments)


def _is_thing(entry: Mapping[str, Any]) -> bool:
    if "isthing" not in entry:
        raise DataError("It has no isthing. Fix it in the file.")
    return bool(entry["isthing"])


def _narrative(index: int, entry: object, panoptic: Panoptic, limits: Limits) -> tuple[Narrative, list[str]]:
    """Read a narrative, and list the mistakes for which phrases were left out of it."""
    if not (isinstance(entry, dict) and "image_id" in entry and isinstance(entry.get("segments"), list)):
        raise DataError("It is not a narrative with image_id and segments. Download the file again.")
    image = identity(entry["image_id"])
    things = panoptic.things_of(image)
    parts = [_utterance(part) for part in entry["segments"]]
    words_so_far: list[str] = []
    length, phrases, mistakes = 0, [], []
    for words, ids, plural in parts:
        if words:
            length += len(words) + (1 if words_so_far else 0)
            words_so_far.append(words)
        if ids:
            try:
                is_thing = _check_named(words, ids, things, image)
            except DataError as error:
                mistakes.append(str(error))
                continue
            tags = ("thing" if plural or is_thing else "stuff", "plural" if plural else "singular")
            phrases.append(Utterance(length - len(words), length, ids, tags))
    text = usable_text(" ".join(words_so_far), limits)
    return Narrative(index, image, text, tuple(phrases)), mistakes


def _utterance(part: object) -> tuple[str, tuple[int, ...], bool]:
    """Read the words of an utterance, the segments that they name, and whether they are a plural."""
    if isinstance(part, dict):
        words, ids = part.get("utterance"), part.get("segment_ids")
        if isinstance(words, str) and isinstance(ids, list):
            return words.strip(), tuple(map(identity, ids)), bool(part.get("plural"))
    raise DataError("A segment of it has no utterance, or no list segment_ids. Download the file again.")


def _check_named(words: str, ids: Sequence[int], things: ById[bool], image: int) -> bool:
    """Check the segments that an utterance names, and return whether the first is a thing."""
    if not words:
        raise DataError(f"An utterance that names segments {shown(list(ids))} is blank.")
    if unknown := [segment for segment in ids if segment not in things]:
        raise DataError(f"The phrase {shown(words)} names segments {shown(unknown)} that image {image} does not have.")
    are_things = [things[segment] for segment in ids]  # every segment must be usable
    return are_things[0]


def _check(narrative: Narrative, limits: Limits) -> None:
    if not narrative.phrases:
        raise DataError(f"The narrative of image {narrative.image} is empty: no phrase of it names a segment.")
    blank_masks(len(narrative.phrases), (1, 1), limits)
