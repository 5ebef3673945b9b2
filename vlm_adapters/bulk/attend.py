"""Where the phrases of many images look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from typing_extensions import override

from vlm_adapters.bulk.formats import Row
from vlm_adapters.bulk.task import Array, Failure, Task, json_column
from vlm_adapters.errors import PromptError
from vlm_adapters.heads.attention import AttentionMaps, attention_maps
from vlm_adapters.prompt import Prompt


class Attend(Task):
    """Where the phrases of every image look: a map of the heads that follow each best, and how reliable it is.

    Args:
        model: An embedded model, a checkpoint's folder or a hub id.
        heads: How many of the heads that follow a phrase best to name.
        raw: Whether the maps are those of the attention as extracted.
        options: The other arguments of `Task`.

    Examples:
        >>> import json
        >>> from vlm_adapters import open_dataset
        >>> from vlm_adapters.bulk import Attend
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> found = Attend("tiny-llava", heads=2)({"image": [scene.image], "text": ["a pink cross"]})
        >>> (phrase,) = json.loads(found["attention"][0])["phrases"]
        >>> phrase["phrase"], phrase["level"], len(phrase["heads"])
        ('a pink cross', 'fair', 2)
    """

    name, suffix = "attend", "parquet"

    def __init__(self, model: str, *, heads: int = 6, raw: bool = False, **options: Any) -> None:
        super().__init__(model, **options)
        self.heads, self.raw = heads, raw

    @property
    @override
    def settings(self) -> dict[str, object]:
        return {"heads": self.heads, "raw": self.raw}

    @override
    def rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        if not all(prompt.phrases for prompt in prompts):
            raise PromptError("There is no phrase to look for. Give a text.")
        return [
            {"phrases": [self._record(maps, phrase) for maps in of_prompt for phrase in range(len(maps.phrases))]}
            for of_prompt in attention_maps(self.adapter, prompts, raw=self.raw)
        ]

    def _record(self, maps: AttentionMaps, phrase: int) -> Row:
        found, words = maps.reliability[phrase], maps.phrases[phrase]
        return {
            "phrase": words.text,
            "start": words.start,
            "end": words.end,
            "grid": maps.grid.name,
            "box": list(maps.grid.box or ()),
            "level": found.level,
            "reliability": found.value,
            "agreement": found.agreement,
            "on_sinks": found.on_sinks,
            "difference": found.difference,
            "sinks": maps.sinks.nonzero().tolist(),
            "heads": [asdict(head) for head in maps.ranking[phrase][: self.heads]],
            "map": maps.together(phrase).tolist(),
        }

    @override
    def columns(self, rows: Sequence[Row | Failure]) -> dict[str, Array]:
        return {"attention": json_column(rows)}
