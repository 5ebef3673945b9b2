"""Attention maps and hidden states of many images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.bulk.formats import Row
from vlm_adapters.bulk.task import Array, Failure, Task, array_column
from vlm_adapters.errors import OptionError
from vlm_adapters.prompt import Prompt

_ONE_THREAD = threading.Lock()
"""Tokenizers and processors are not made for several threads at once."""


class Extract(Task):
    """Attention maps and hidden states of every image.

    Args:
        model: An embedded model, a checkpoint's folder or a hub id.
        request: What to extract.
        save_dtype: Precision of maps and hidden states: `"float32"` or `"float16"`.
        options: The other arguments of `Task`.

    Examples:
        >>> from vlm_adapters import GridRequest, open_dataset
        >>> from vlm_adapters.bulk import Extract
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> extract = Extract("tiny-llava", request=GridRequest(layers=[-1], hidden_layers=[0, -1]))
        >>> found = extract({"image": [scene.image], "text": ["a pink cross"]})
        >>> found["fine.attention"][0].shape, found["fine.hidden"][0].shape  # (P, L, n, h, w), (K, D, h, w)
        ((1, 1, 8, 16, 16), (2, 128, 16, 16))
    """

    name, suffix = "extract", "safetensors"

    def __init__(
        self,
        model: str,
        *,
        request: GridRequest | None = None,
        save_dtype: Literal["float32", "float16"] = "float32",
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if save_dtype not in ("float32", "float16"):
            raise OptionError(f"save_dtype={save_dtype!r} is unknown. Use float32 or float16.")
        self.request, self.save_dtype = request or GridRequest(), save_dtype

    @property
    @override
    def settings(self) -> dict[str, object]:
        return {"request": vars(self.request), "save_dtype": self.save_dtype}

    @override
    def rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        return self.prepare(prompts)()

    @override
    def prepare(self, prompts: Sequence[Prompt]) -> Callable[[], list[Row]]:
        with _ONE_THREAD:
            inputs = self.adapter.preprocess(prompts)

        @torch.no_grad()
        def finish() -> list[Row]:
            extracted = self.adapter.extract(inputs, self.request)
            return [self._row(prompt, grids) for prompt, grids in zip(prompts, extracted, strict=True)]

        return finish

    def _row(self, prompt: Prompt, of_prompt: Sequence[Grids]) -> Row:
        """The arrays of a prompt; what was not requested is left out."""
        image = prompt.first_image
        row: Row = {"size": np.array([image.height, image.width])}
        for grids in of_prompt:
            grid, name = grids.grid, grids.grid.name
            if grids.attention.numel():
                row[f"{name}.attention"] = self._saved(grids.attention)
                row |= {"layers": np.array(grids.layers), "heads": np.array(grids.heads)}
            if grids.hidden_layers:
                row[f"{name}.hidden"] = self._saved(grids.hidden)
                row["hidden_layers"] = np.array(grids.hidden_layers)
            places = {"box": grid.box or (), "rows": grid.rows, "columns": grid.columns}
            row |= {f"{name}.{part}": np.array(place, np.float64) for part, place in places.items() if place}
        for phrase, states in enumerate(of_prompt[0].phrase_hidden if of_prompt[0].phrase_hidden_layers else ()):
            row[f"phrase_hidden.{phrase}"] = self._saved(states)
        return row

    def _saved(self, tensor: Tensor) -> Array:
        dtype = torch.float16 if self.save_dtype == "float16" else torch.float32
        saved = tensor.to(dtype).cpu().contiguous()
        if dtype == torch.float16 and not bool(saved.isfinite().all()):
            raise OptionError("There are values that do not fit into float16. Save float32.")
        array: Array = saved.numpy()
        return array

    @override
    def columns(self, rows: Sequence[Row | Failure]) -> dict[str, Array]:
        names = dict.fromkeys(name for row in rows if not isinstance(row, Failure) for name in row)
        return {name: array_column(rows, name) for name in names}
