"""Groundings in the forms that other tools read: COCO results, indexed images, `supervision` detections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from typing_extensions import TypedDict  # pydantic reads no other below Python 3.12

from vlm_adapters.answer import Answer
from vlm_adapters.backbone.divergence import Divergence
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.result import Grounding, PackedMask
from vlm_adapters.output.render import colour_of

if TYPE_CHECKING:
    from supervision import Detections

MAX_INDEXED_PHRASES = 255
"""Largest number of phrases in an indexed image, whose pixels are bytes."""


class CocoResult(TypedDict):
    """One entry of a COCO results file for masks.

    It has no `bbox`: where there is one, pycocotools takes the area of the box for that of the mask, and sorts a thin
    mask among the large ones. Without one it computes area and box from the mask.
    """

    image_id: int | str
    category_id: int
    segmentation: dict[str, object]
    score: float


def coco_results(grounding: Grounding, image_id: int | str, *, category_id: int = 1) -> list[CocoResult]:
    """List the phrases that were found as entries of a COCO results file, as `COCO.loadRes` of pycocotools reads it.

    Args:
        grounding: The grounding of an image.
        image_id: Id of the image, as in the file with the truth.
        category_id: Category id of all phrases; they are words, not categories.
    """
    return [
        {
            "image_id": image_id,
            "category_id": category_id,
            "segmentation": grounded.run_lengths,
            "score": grounded.score,
        }
        for grounded in grounding.phrases
        if grounded.box is not None
    ]


def indexed_image(grounding: Grounding) -> Image.Image:
    """Draw all masks into one indexed image (mode `P`): `i + 1` where phrase `i` is, and 0 elsewhere.

    Where masks overlap, the smaller one is on top, so that a part stays visible on its object. The palette has the
    colours of the figures.

    Raises:
        OptionError: There are more phrases than a byte can number.
    """
    if len(grounding.phrases) > MAX_INDEXED_PHRASES:
        raise OptionError(
            f"An indexed image holds at most {MAX_INDEXED_PHRASES} phrases, and there are {len(grounding.phrases)}. "
            "Write one mask per phrase."
        )
    indices = np.zeros((grounding.image.height, grounding.image.width), np.uint8)
    masks = [grounded.packed for grounded in grounding.phrases]
    for index in sorted(range(len(masks)), key=lambda index: -masks[index].area):
        if box := masks[index].box:
            left, top, right, bottom = box
            indices[top:bottom, left:right][masks[index].in_box()] = index + 1
    image = Image.frombytes("P", grounding.image.size, indices.tobytes())
    image.putpalette([0, 0, 0, *(value for index in range(MAX_INDEXED_PHRASES) for value in colour_of(index))])
    return image


def to_detections(found: Grounding | Sample) -> Detections:
    """Convert the phrases that have a mask to `supervision.Detections`, their words in `data["class_name"]`.

    `class_id` is the index of the phrase. Those of a grounding have `confidence`; those of a sample of a data set,
    which are the truth, have none.

    Raises:
        OptionError: `supervision` is not installed.
    """
    try:
        from supervision import Detections  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise OptionError(
            'supervision is not installed. Install it with pip install "vlm-adapters[supervision]".'
        ) from error
    if isinstance(found, Sample):
        packed, scores = [PackedMask.of(mask) for mask in found.masks], None
        words = [phrase.text for phrase in found.phrases]
    else:
        packed, scores = [grounded.packed for grounded in found.phrases], [one.score for one in found.phrases]
        words = [grounded.phrase.text for grounded in found.phrases]
    kept = [index for index, mask in enumerate(packed) if mask.box is not None]
    if not kept:
        return Detections.empty()
    return Detections(
        xyxy=np.array([packed[index].box for index in kept], dtype=np.float32),
        mask=np.stack([packed[index].unpacked() for index in kept]),
        confidence=None if scores is None else np.array([scores[index] for index in kept], dtype=np.float32),
        class_id=np.array(kept),
        data={"class_name": np.array([words[index] for index in kept])},
    )


class ShownDivergence(TypedDict):
    """A `Divergence` in JSON."""

    tokens: int
    differing: int
    first: list[int] | None
    largest_gap: float


class ShownAnswer(TypedDict):
    """An answer in JSON; the ids of its tokens and its divergence are null where they are not known."""

    text: str
    ids: list[int] | None
    divergence: ShownDivergence | None


def answer_to_dict(answer: Answer | None, divergence: Divergence | None) -> ShownAnswer | None:
    """Convert an answer to JSON-safe values; null for a text that is not an answer."""
    if answer is None:
        return None
    shown: ShownDivergence | None = None
    if divergence is not None:
        first = None if divergence.first is None else list(divergence.first)
        shown = {
            "tokens": divergence.tokens,
            "differing": divergence.differing,
            "first": first,
            "largest_gap": divergence.largest_gap,
        }
    return {"text": answer.text, "ids": None if answer.ids is None else list(answer.ids), "divergence": shown}


class ShownPhrase(TypedDict):
    """A grounded phrase in JSON.

    Attributes:
        text: Its words.
        span: `[start, end)` in the text.
        state: Whether it is there, as `GroundedPhrase.state` says it.
        presence: Probability that it is in the image; null where nothing can be said.
        score: How sure the mask is, 0 to 1.
        box: `[left, top, right, bottom]` in pixels, right and bottom excluded; null where there is no mask.
        mask: COCO's compressed run lengths.
    """

    text: str
    span: list[int]
    state: str
    presence: float | None
    score: float
    box: list[int] | None
    mask: dict[str, object]


class ShownGrounding(TypedDict):
    """A grounding in JSON, of an image of `[H, W]` pixels; the answer is null where the text is none."""

    text: str
    method: str | None
    warnings: list[str]
    answer: ShownAnswer | None
    image_size: list[int]
    phrases: list[ShownPhrase]


def grounding_to_dict(grounding: Grounding) -> ShownGrounding:
    """Convert a grounding to JSON-safe values: text, method, warnings, size of the image, and the phrases.

    `answer` is as `answer_to_dict` gives it, and null where the text is not an answer. A phrase has text, span, state,
    presence (null where nothing can be said), score, box and mask (COCO RLE). Boxes are `[left, top, right, bottom]` in
    pixels, right and bottom excluded; null where there is no mask.
    """
    return {
        "text": grounding.text,
        "method": grounding.method,
        "warnings": list(grounding.warnings),
        "answer": answer_to_dict(grounding.answer, grounding.divergence),
        "image_size": [grounding.image.height, grounding.image.width],
        "phrases": [
            {
                "text": grounded.phrase.text,
                "span": list(grounded.phrase.span),
                "state": grounded.state,
                "presence": grounded.presence,
                "score": grounded.score,
                "box": None if grounded.box is None else list(grounded.box),
                "mask": grounded.run_lengths,
            }
            for grounded in grounding.phrases
        ],
    }
