"""A user's script over the public names. mypy reads it in strict mode, and it is never run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import override

import vlm_adapters
from vlm_adapters import (
    AdapterError,
    AdapterSpec,
    BackboneAdapter,
    BackboneInfo,
    GridRequest,
    Grids,
    GroundedVLM,
    Grounder,
    Grounding,
    ImageGrid,
    ImageLayout,
    MaskDecoder,
    Message,
    Phrase,
    Prompt,
    Recipe,
    TransformersBackbone,
    evaluate,
    ground,
    hookimpl,
    list_adapters,
    load_adapter,
    load_grounder,
    load_image,
    look,
    open_dataset,
    place_map,
    train,
)
from vlm_adapters.backbone import BackboneInputs
from vlm_adapters.data import Dataset, Sample
from vlm_adapters.decoder import MaskLogits
from vlm_adapters.errors import CheckpointError
from vlm_adapters.evaluation import Card, EvaluationSettings
from vlm_adapters.output import Attention
from vlm_adapters.registry import AdapterEntry
from vlm_adapters.training import RunState, TrainingData


def maps(path: Path) -> Tensor:
    """Load, extract and place."""
    image = load_image(path)
    assert_type(image, Image.Image)
    adapter = load_adapter("tiny-llava", device="cpu", dtype="float32", min_pixels=4)
    assert_type(adapter, BackboneAdapter)
    assert_type(adapter.info, BackboneInfo)
    prompt = Prompt.chat([Message("user", (image, "What is left of the cat?"))], phrases=["the cat"])
    assert_type(prompt.phrases, tuple[Phrase, ...])
    inputs = adapter.preprocess([prompt])
    assert_type(inputs, BackboneInputs)
    grids = adapter.extract(inputs, GridRequest(layers=[-1], reduce="max"))[0][0]
    assert_type(grids, Grids)
    assert_type(grids.grid, ImageGrid)
    return place_map(grids.attention, grids.grid.box, (image.height, image.width))


def masks(image: Image.Image) -> list[NDArray[np.bool_]]:
    """Ground, and catch what can go wrong by the library's error or Python's."""
    try:
        grounder = load_grounder("tiny-llava", method="heads")
    except (CheckpointError, AdapterError):
        grounder = GroundedVLM.from_pretrained("tiny-llava")
    assert_type(grounder, Grounder)
    grounding = grounder.ground(image, "a cat on a mat", ["a cat", (9, 14)])
    assert_type(grounding, Grounding)
    assert_type(ground(image, "a cat", model=grounder.adapter, method="heads"), Grounding)
    assert_type(look("photo.jpg", "a cat", model="tiny-llava", dtype="float32"), Attention)
    assert_type(list(grounder.ground_each((path, "a cat") for path in ["photo.jpg"])), list[Grounding])
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "a cat"}]}]
    assert_type(grounder.ground_all(chat), list[Grounding])
    assert_type(grounder.ground_all([(torch.zeros(3, 4, 4), "a cat", ["a cat"])]), list[Grounding])
    return [phrase.mask for phrase in grounding.phrases]


def learn(out: Path) -> float | None:
    """Train with the library's loop and with one's own, and evaluate."""
    dataset = open_dataset("scenes:count=4")
    assert_type(dataset, Dataset)
    assert_type(dataset[0], Sample)
    recipe = Recipe.read("scenes", ["epochs=1"])
    assert_type(TrainingData.open(recipe).train, tuple[Dataset, ...])
    assert_type(train(recipe, out), RunState)
    adapter = load_adapter("tiny-llava")
    vlm = GroundedVLM(adapter, MaskDecoder.untrained(adapter.info))
    assert_type(vlm.mask_logits([dataset[0].prompt]), list[MaskLogits])
    card = evaluate(vlm, dataset, EvaluationSettings(protocol="packed"), out)
    assert_type(card, Card)
    return card.number("all", "mask", "mIoU").value


class MyBackbone(TransformersBackbone):
    """A family of a plugin's author."""

    @override
    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        return [[ImageLayout(image=size, resized=(336, 336), canvas=(336, 336), cells=(24, 24))] for size in sizes]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer it."""
    return [AdapterSpec("my_vlm", "my_plugin.adapter:MyBackbone")]


def names() -> list[str]:
    """List the adapters."""
    entries = list_adapters()
    assert_type(entries, list[AdapterEntry])
    return [vlm_adapters.__version__, *(entry.name or "broken" for entry in entries)]
