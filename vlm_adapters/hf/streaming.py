"""The text of an answer while it is written."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase, TextStreamer
from typing_extensions import override


class TextCallback(TextStreamer):
    """A streamer that gives the text of an answer to a function, word by word, without control tokens.

    Args:
        tokenizer: Of the model that writes.
        write: Gets every piece of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    @override
    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._write(text)
