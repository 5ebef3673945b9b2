"""Groundings in the form of GLaMM's grounded conversation generation (arXiv 2311.03356), which its evaluation reads."""

from __future__ import annotations

from typing import TypedDict

from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.limits import shown


class GCGResult(TypedDict):
    """What GLaMM's inference writes of an image, to `IMAGE_ID.json`.

    Attributes:
        image_id: Id of the image, as in the file with the truth: the name of its file without suffix.
        caption: The text, without marks.
        phrases: The words of the phrases, in their order in the text.
        pred_masks: Their masks as COCO's compressed run lengths; all zero where nothing was found.
    """

    image_id: str
    caption: str
    phrases: list[str]
    pred_masks: list[dict[str, object]]


def gcg_result(grounding: Grounding, image_id: int | str) -> GCGResult:
    """Convert a grounding to the form that GLaMM's evaluation reads, one file per image."""
    found = sorted(grounding.phrases, key=lambda grounded: grounded.phrase.span)
    return {
        "image_id": str(image_id),
        "caption": " ".join(grounding.text.split()),
        "phrases": [grounded.phrase.text for grounded in found],
        "pred_masks": [grounded.run_lengths for grounded in found],
    }


def gcg_text(grounding: Grounding) -> str:
    """Write the text as GLaMM does: `<p> a red star </p> [SEG] left of <p> a blue cross </p> [SEG]`.

    The masks that `[SEG]` stands for are those of `gcg_result`, in this order.

    Raises:
        OptionError: Two phrases share words.
    """
    text, end = "", 0
    for phrase in sorted((grounded.phrase for grounded in grounding.phrases), key=lambda phrase: phrase.span):
        if phrase.start < end:
            raise OptionError(
                f"The phrase {shown(phrase.text)} shares words with the one before it, which the form of GLaMM has no "
                "way to write. Ground phrases that lie beside each other."
            )
        text += f"{grounding.text[end : phrase.start]}<p> {phrase.text} </p> [SEG]"
        end = phrase.end
    return text + grounding.text[end:]
