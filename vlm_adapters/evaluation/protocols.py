"""How a sample is asked for, and the masks that come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.open import open_dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.data.uri import read_named
from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.prompt import Prompt

Masks = NDArray[np.bool_]


def as_it_is(sample: Sample) -> list[Prompt]:
    """The sample's sentence with all its phrases: a phrase is read after those before it."""
    return [sample.prompt] if sample.phrases else []


def words_alone(sample: Sample) -> list[Prompt]:
    """A prompt for every phrase, whose text is the phrase and nothing else."""
    return [Prompt.describe(sample.image, phrase.text, [(0, len(phrase.text))]) for phrase in sample.phrases]


PROTOCOLS: Mapping[str, Callable[[Sample], list[Prompt]]] = {"isolated": words_alone, "packed": as_it_is}
"""How a sample becomes prompts, whose phrases are its own, in their order."""


def protocol_named(name: str) -> Callable[[Sample], list[Prompt]]:
    """One of `PROTOCOLS`.

    Raises:
        OptionError: There is none of this name.
    """
    if name not in PROTOCOLS:
        raise OptionError(f"Unknown protocol {name!r}. Use one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def open_asked(data: str, protocol: str, sentences: str | None) -> Dataset:
    """Open a data set as it is to be asked for.

    A set of referring expressions has keys `form` and `sentences` of its own: what is asked for goes before them.

    Args:
        data: As `open_dataset` takes it.
        protocol: A key of `PROTOCOLS`.
        sentences: Which sentences of an object count; None leaves it as `data` says.

    Raises:
        OptionError: There is no such protocol, or `sentences` is given and the set has none to choose from.
        DataError: The set cannot be opened so.
    """
    protocol_named(protocol)
    dataset = open_dataset(data)
    kind, said = read_named(dataset.source)
    if sentences is not None and "sentences" not in said:
        raise OptionError(
            f"The data set {dataset.source} has one text for a sample, and --sentences is {sentences}. Leave it out."
        )
    asked = {"form": protocol, "sentences": sentences or said.get("sentences")}
    wanted = {key: asked.get(key, value) for key, value in said.items()}
    return dataset if wanted == said else open_dataset({"kind": kind, **wanted})


def find_masks(grounder: Grounder, asked: Sequence[Sequence[Prompt]], batch_size: int) -> list[dict[str, Masks]]:
    """Find the masks of all phrases of some samples.

    Args:
        grounder: Finds them.
        asked: The prompts of every sample.
        batch_size: Prompts that are computed at once.

    Returns:
        Per sample the masks `(P, H, W)` bool at the image's size, by name; none where nothing was asked.
    """
    found = iter(grounder.masks([prompt for prompts in asked for prompt in prompts], batch_size=batch_size))
    of_samples = [[next(found) for _ in prompts] for prompts in asked]
    return [
        {name: np.concatenate([masks[name] for masks in of_prompts]) for name in of_prompts[0]} if of_prompts else {}
        for of_prompts in of_samples
    ]
