"""The files of Panoptic Narrative Grounding: narratives, and COCO's panoptic segments of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vlm_adapters.data.dataset import Problem
from vlm_adapters.data.formats.coco_files import CocoImage, entries, identity, read_images, read_json
from vlm_adapters.errors import DataError


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


class Panoptic(NamedTuple):
    """An image and its segments.

    Attributes:
        image: The image.
        file_name: The file name of the PNG with its segments.
    """

    image: CocoImage
    file_name: str


@dataclass(frozen=True)
class Narratives:
    """All narratives of a file.

    Attributes:
        path: The file.
        narratives: The narratives that can be used, in the order of the file.
        panoptic: Their images and segments, by the id of the image.
        problems: Narratives and phrases that were left out.
    """

    path: Path
    narratives: tuple[Narrative, ...]
    panoptic: Mapping[int, Panoptic]
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, path: Path, panoptic: Path) -> Narratives:
        """Read narratives and the segments that they may name.

        Args:
            path: The file of the narratives, such as `png_coco_val2017.json`.
            panoptic: The file of the segments, such as `panoptic_val2017.json`.

        Raises:
            DataError: A file is missing or not in the published form.
        """
        segments = _Segments.read(panoptic)
        content = read_json(path)
        if not isinstance(content, list):
            raise DataError(f"{path} does not hold a list of narratives. Give a png_coco_*.json.")
        narratives: list[Narrative] = []
        problems: list[Problem] = []
        for index, entry in enumerate(content):
            try:
                narrative, mistakes = _narrative(index, entry, segments)
                problems += (Problem(f"{path}[{index}]", mistake) for mistake in mistakes)
                _check_has_phrases(narrative)
            except DataError as error:
                problems.append(Problem(f"{path}[{index}]", str(error)))
            else:
                narratives.append(narrative)
        images = {narrative.image: segments.panoptic(narrative.image) for narrative in narratives}
        return cls(path, tuple(narratives), images, tuple(problems))


@dataclass(frozen=True)
class _Segments:
    """A panoptic file: the segments that narratives can name."""

    path: Path
    images: Mapping[int, CocoImage]
    annotations: Mapping[int, Mapping[str, Any]]
    things: Mapping[int, bool]

    @classmethod
    def read(cls, path: Path) -> _Segments:
        content = read_json(path)
        annotations = entries(path, content, "annotations", ("image_id", "file_name", "segments_info"))
        categories = entries(path, content, "categories", ("id", "isthing"))
        return cls(
            path,
            read_images(path, content),
            {identity(entry["image_id"]): entry for entry in annotations},
            {identity(entry["id"]): bool(entry["isthing"]) for entry in categories},
        )

    def panoptic(self, image: int) -> Panoptic:
        return Panoptic(self.images[image], str(self.annotations[image]["file_name"]))

    def things_of(self, image: int) -> dict[int, bool]:
        """Map the ids of an image's segments to whether they are things."""
        if image not in self.images or image not in self.annotations:
            raise DataError(f"Its image {image} is not in {self.path}. Use files of one release.")
        found = entries(self.path, self.annotations[image], "segments_info", ("id", "category_id"))
        try:
            return {identity(segment["id"]): self.things[identity(segment["category_id"])] for segment in found}
        except KeyError as error:
            raise DataError(f"{self.path} has no category {error} for a segment of image {image}.") from None


def _narrative(index: int, entry: object, segments: _Segments) -> tuple[Narrative, list[str]]:
    """Read a narrative, and list the mistakes for which phrases were left out of it."""
    if not (isinstance(entry, dict) and "image_id" in entry and isinstance(entry.get("segments"), list)):
        raise DataError("It is not a narrative with image_id and segments. Download the file again.")
    image = identity(entry["image_id"])
    things = segments.things_of(image)
    text, phrases, mistakes = "", [], []
    for part in entry["segments"]:
        words, ids, plural = _utterance(part)
        text += (" " if text and words else "") + words
        if mistake := _mistake(words, ids, things, image):
            mistakes.append(mistake)
        elif ids:
            tags = ("thing" if plural or things[ids[0]] else "stuff", "plural" if plural else "singular")
            phrases.append(Utterance(len(text) - len(words), len(text), ids, tags))
    return Narrative(index, image, text, tuple(phrases)), mistakes


def _utterance(part: object) -> tuple[str, tuple[int, ...], bool]:
    """Read the words of an utterance, the segments that they name, and whether they are a plural."""
    if isinstance(part, dict):
        words, ids = part.get("utterance"), part.get("segment_ids")
        if isinstance(words, str) and isinstance(ids, list):
            return words.strip(), tuple(map(identity, ids)), bool(part.get("plural"))
    raise DataError("A segment of it has no utterance, or no list segment_ids. Download the file again.")


def _mistake(words: str, ids: Sequence[int], things: Mapping[int, bool], image: int) -> str:
    if ids and not words:
        return f"An utterance that names segments {list(ids)} is blank."
    if unknown := [segment for segment in ids if segment not in things]:
        return f"The phrase {words!r} names segments {unknown} that image {image} does not have."
    return ""


def _check_has_phrases(narrative: Narrative) -> None:
    if not narrative.phrases:
        raise DataError(f"The narrative of image {narrative.image} is empty: no phrase of it names a segment.")
