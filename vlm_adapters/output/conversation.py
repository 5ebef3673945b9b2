"""The files of a conversation: a folder for every turn, and `chat.json`, which names them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from vlm_adapters.data.files import write_json
from vlm_adapters.grounding.chat import Turn
from vlm_adapters.output.exports import ShownAnswer, answer_to_dict
from vlm_adapters.output.files import (
    GCG_FILE,
    GROUNDING_FILE,
    NO_FILES,
    remove_grounding,
    set_of_files,
    write_grounding,
)
from vlm_adapters.output.gcg import gcg_result

CHAT_FILE = "chat.json"
"""Names the folders of the turns; where it is, they are whole."""

_FOLDERS = re.compile(r"turn_(\d\d|[1-9]\d{2,})(_image_[1-9]\d*)?", re.ASCII)


class ShownTurn(TypedDict):
    """A turn in JSON.

    Attributes:
        question: What the user asked.
        answer: The answer, with the ids of its tokens.
        folders: A folder for every image in which its phrases were grounded.
    """

    question: str
    answer: ShownAnswer | None
    folders: list[str]


class ConversationFiles:
    """Writes the turns of a conversation into a folder as they come, each whole or not at all.

    Args:
        out: The folder. Of an earlier conversation in it nothing is left once the first turn is written.
        image_ids: The id of every image for `coco.json` and `gcg.json`, in the order in which images are shown.
    """

    def __init__(self, out: Path, image_ids: Sequence[int | str]) -> None:
        self.out = out
        self.image_ids = image_ids
        self.turns: list[ShownTurn] = []

    def add(self, turn: Turn) -> list[Path]:
        """Write a turn: overlay, figure, masks and JSON for every image, and `chat.json` anew.

        Returns:
            The folders of the turn.

        Raises:
            OutputError: A file cannot be written.
        """
        if not self.turns:
            self._remove_earlier()
        number, count = f"turn_{len(self.turns) + 1:02d}", len(turn.groundings)
        names = [number] if count == 1 else [f"{number}_image_{index + 1}" for index in range(count)]
        folders = [self.out / name for name in names]
        for folder, grounding, image_id in zip(folders, turn.groundings, self.image_ids, strict=False):
            with set_of_files(folder, GROUNDING_FILE, NO_FILES):
                write_json(folder / GCG_FILE, dict(gcg_result(grounding, image_id)))
                write_grounding(grounding, folder, image_id=image_id)
        divergence = turn.groundings[0].divergence if turn.groundings else None
        answer = answer_to_dict(turn.answer, divergence)
        self.turns.append({"question": turn.question, "answer": answer, "folders": names})
        write_json(self.out / CHAT_FILE, {"turns": self.turns})
        return folders

    def _remove_earlier(self) -> None:
        """Remove the files of an earlier conversation; where there was none, nothing is ours."""
        if not (self.out / CHAT_FILE).is_file():
            return
        with set_of_files(self.out, CHAT_FILE, NO_FILES):
            for folder in sorted(path for path in self.out.iterdir() if _FOLDERS.fullmatch(path.name)):
                remove_grounding(folder)
