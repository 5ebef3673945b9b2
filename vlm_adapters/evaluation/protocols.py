"""Evaluation protocols: how a sample becomes prompts, and how a data set is opened for one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import tee

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.open import DatasetSource, change_config, open_dataset, read_config
from vlm_adapters.data.sample import Sample
from vlm_adapters.data.uri import parse_uri
from vlm_adapters.errors import DataError, OptionError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.prompt import Prompt

Masks = NDArray[np.bool_]
"""Masks `(P, H, W)` of the phrases of a sample."""


def packed(sample: Sample) -> list[Prompt]:
    """Prompt once with the sample's text and all its phrases: the model reads a phrase after those before it."""
    return [sample.prompt] if sample.phrases else []


def isolated(sample: Sample) -> list[Prompt]:
    """Prompt once per phrase, with the words of the phrase and nothing else."""
    return [Prompt.describe(sample.image, phrase.text, [(0, len(phrase.text))]) for phrase in sample.phrases]


PROTOCOLS: Mapping[str, Callable[[Sample], list[Prompt]]] = {"isolated": isolated, "packed": packed}
"""Functions that turn a sample into prompts, by name; the phrases of the prompts are the sample's, in its order."""


def protocol_named(name: str) -> Callable[[Sample], list[Prompt]]:
    """Look up one of `PROTOCOLS`.

    Raises:
        OptionError: There is no such protocol.
    """
    if name not in PROTOCOLS:
        raise OptionError(f"Unknown protocol {name!r}. Use one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def open_for_protocol(data: DatasetSource, protocol: str, sentences: str | None = None) -> Dataset:
    """Open a data set in the form that a protocol needs.

    A set of referring expressions has keys `form` and `sentences`: the arguments here take precedence over them.

    Args:
        data: The data set, as `open_dataset` takes it.
        protocol: A key of `PROTOCOLS`.
        sentences: Which sentences of an object count; None leaves it to `data`.

    Raises:
        OptionError: There is no such protocol, or `sentences` is given and the set has none to choose from.
        DataError: The set cannot be opened so.
    """
    protocol_named(protocol)
    config = read_config(data)
    keys = type(config).model_fields
    if sentences is not None and "sentences" not in keys:
        raise OptionError(f"The data set {data} has one text per sample, and --sentences is {sentences}. Leave it out.")
    changes = {"form": protocol} if sentences is None else {"form": protocol, "sentences": sentences}
    return open_dataset(change_config(config, {key: value for key, value in changes.items() if key in keys}))


def sentences_of(dataset: Dataset) -> str | None:
    """Tell which sentences of an object count in a data set; None where it has one text per sample, or does not say."""
    try:
        sentences = parse_uri(dataset.source)[1].get("sentences")
    except DataError:  # a slice, or a data set that is defined elsewhere: its source is not one that can be opened
        return None
    return None if sentences is None else str(sentences)


def find_masks(grounder: Grounder, prompts: Sequence[Sequence[Prompt]], batch_size: int) -> list[dict[str, Masks]]:
    """Find the masks of all phrases of some samples.

    Args:
        grounder: Finds the masks.
        prompts: The prompts of every sample.
        batch_size: Prompts that are computed at once.

    Returns:
        For every sample the masks `(P, H, W)` bool at the image's size, by name; empty for a sample without prompts.
    """
    return next(find_masks_of_batches(grounder, [prompts], batch_size))


def find_masks_of_batches(
    grounder: Grounder, batches: Iterable[Sequence[Sequence[Prompt]]], batch_size: int
) -> Iterator[list[dict[str, Masks]]]:
    """Do so for one batch of samples after the other, of which the next may be prepared ahead."""
    batches, ahead = tee(batches)
    flat = ([prompt for of_sample in batch for prompt in of_sample] for batch in ahead)
    found = grounder.masks_of_batches(flat, batch_size=batch_size)
    for batch in batches:
        masks = iter(next(found))
        yield [_joined([next(masks) for _ in of_sample]) for of_sample in batch]
    next(found, None)  # raises the error that ended the batches, if it came while they were taken ahead


def _joined(of_prompts: Sequence[Mapping[str, Masks]]) -> dict[str, Masks]:
    """The masks of a sample's prompts, one after the other."""
    names = of_prompts[0] if of_prompts else {}
    return {name: np.concatenate([of_prompt[name] for of_prompt in of_prompts]) for name in names}
