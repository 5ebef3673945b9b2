"""Images with one sentence each, from a folder, without masks."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vlm_adapters.data.documents import check_encoding
from vlm_adapters.errors import DataError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.reading import read_at_most

_MARKED = re.compile(r"\[([^][]*)\]")


def read_captioned(folder: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> list[Prompt]:
    """Read the images of a folder, each with a sentence about it in a `.txt` file of the same name.

    Brackets mark phrases, `"[a red circle] left of [a blue star]"`, and are removed; a sentence without brackets is one
    phrase. Images without a sentence are left out.

    Args:
        folder: The folder.
        limits: Longest text that is read.

    Returns:
        The prompts, in the order of the file names.

    Raises:
        DataError: The folder has no sentence, or one has no image beside it or cannot be read.
        ImageError: An image cannot be used.
        PhraseError: Two brackets have only white space between them.
    """
    sentences = sorted(Path(folder).glob("*.txt"))
    if not sentences:
        raise DataError(
            f"There is no sentence in {os.fspath(folder)}. Give a folder with images and, beside each, a .txt file "
            "of the same name."
        )
    return [_prompt(path, limits) for path in sentences]


def _prompt(path: Path, limits: Limits) -> Prompt:
    images = sorted(other for other in path.parent.glob("*") if other.stem == path.stem and other != path)
    if len(images) != 1:
        found = ", ".join(image.name for image in images) or "none"
        raise DataError(f"{path} needs one image of the same name beside it, found: {found}.")
    try:
        content = read_at_most(path, limits.max_line_bytes)
        check_encoding(content)
        marked = content.decode("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}. Save it as UTF-8.") from error
    text = _MARKED.sub(r"\1", marked)
    # the text is shorter than the marked one by two brackets for every phrase before
    spans = [(match.start() - 2 * i, match.end() - 2 * i - 2) for i, match in enumerate(_MARKED.finditer(marked))]
    return Prompt.describe(images[0], text, [Phrase.at(text, *span) for span in spans or [(0, len(text))]])
