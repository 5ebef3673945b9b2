"""Masks for the phrases of many images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from typing_extensions import override

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.bulk.formats import Row
from vlm_adapters.bulk.task import Array, Failure, Task, json_column
from vlm_adapters.errors import PromptError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.load import load_grounder
from vlm_adapters.output.exports import grounding_to_dict
from vlm_adapters.prompt import Prompt


class Ground(Task):
    """Masks for the phrases of every image.

    Args:
        model: An embedded model, a decoder's folder, a checkpoint's folder or a hub id.
        keep_absent: Whether phrases that count as absent keep their masks.
        options: The other arguments of `Task`, and those of `load_grounder`, such as `method`.

    Examples:
        >>> from vlm_adapters import open_dataset
        >>> from vlm_adapters.bulk import Ground
        >>> import json
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> found = Ground("tiny-llava")({"image": [scene.image], "text": ["a pink cross"]})
        >>> json.loads(found["grounding"][0])["phrases"][0]["state"]
        'found'
    """

    name, suffix = "ground", "jsonl"

    def __init__(self, model: str, *, keep_absent: bool = False, **options: Any) -> None:
        super().__init__(model, **options)
        self.keep_absent = keep_absent

    @cached_property
    def grounder(self) -> Grounder:
        """What finds the masks, loaded when it is first asked for."""
        grounder = load_grounder(self.model, **self.options)
        grounder.keeps_absent_masks = self.keep_absent
        return grounder

    @cached_property
    @override
    def adapter(self) -> BackboneAdapter:
        return self.grounder.adapter

    @property
    @override
    def settings(self) -> dict[str, object]:
        digests = self.grounder.fingerprint()
        return {"method": self.grounder.description, "digests": digests, "keep_absent": self.keep_absent}

    @override
    def rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        if not all(prompt.phrases for prompt in prompts):
            raise PromptError("There is no phrase to ground. Give a text.")
        return [{**grounding_to_dict(grounding)} for grounding in self.grounder.ground_all(prompts)]

    @override
    def columns(self, rows: Sequence[Row | Failure]) -> dict[str, Array]:
        return {"grounding": json_column(rows)}
