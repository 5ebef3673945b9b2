"""Images with a sentence each, from a folder: no masks."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vlm_adapters.errors import DataError
from vlm_adapters.prompt import Phrase, Prompt

_MARKED = re.compile(r"\[([^][]*)\]")


def read_captioned(folder: str | os.PathLike[str]) -> list[Prompt]:
    """Read the images of a folder, each with a sentence about it in a `.txt` file of the same name.

    Phrases are marked with brackets, `"[a red circle] left of [a blue star]"`, which are taken out; a sentence without
    brackets is one phrase. Images without a sentence are left out.

    Returns:
        In the order of their names.

    Raises:
        DataError: The folder has no sentence, or one has no image beside it or cannot be read.
        ImageError: An image cannot be used.
        PhraseError: What brackets mark is blank.
    """
    sentences = sorted(Path(folder).glob("*.txt"))
    if not sentences:
        raise DataError(
            f"There is no sentence in {os.fspath(folder)}. Give a folder with images and, beside each, a .txt file "
            "of its name."
        )
    return [_prompt(path) for path in sentences]


def _prompt(path: Path) -> Prompt:
    images = sorted(other for other in path.parent.glob("*") if other.stem == path.stem and other != path)
    if len(images) != 1:
        told = ", ".join(image.name for image in images) or "none"
        raise DataError(f"{path} needs one image of its name beside it, found: {told}.")
    try:
        marked = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}. Write it again.") from error
    text = _MARKED.sub(r"\1", marked)
    # two brackets are gone for every phrase before
    spans = [(found.start() - 2 * i, found.end() - 2 * i - 2) for i, found in enumerate(_MARKED.finditer(marked))]
    return Prompt.describe(images[0], text, [Phrase.at(text, *span) for span in spans or [(0, len(text))]])
