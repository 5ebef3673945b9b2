"""How a sample is asked for, and the masks that come back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.open import open_dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.data.uri import parse_uri
from vlm_adapters.decoder.sam.model import EncodedImage
from vlm_adapters.errors import OptionError
from vlm_adapters.geometry import place_map
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.decoded import GroundedVLM
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
    kind, said = parse_uri(dataset.source)
    if sentences is not None and "sentences" not in said:
        raise OptionError(
            f"The data set {dataset.source} has one text for a sample, and --sentences is {sentences}. Leave it out."
        )
    asked = {"form": protocol, "sentences": sentences or said.get("sentences")}
    wanted = {key: asked.get(key, value) for key, value in said.items()}
    return dataset if wanted == said else open_dataset({"kind": kind, **wanted})


def find_masks(
    grounder: Grounder, samples: Sequence[Sample], asked: Sequence[Sequence[Prompt]], batch: int
) -> list[dict[str, Masks]]:
    """Find the masks of all phrases of some samples.

    Args:
        grounder: Finds them. An image is encoded for its refiner once, however many prompts and samples it has.
        samples: Whose images the prompts are about.
        asked: The prompts of every sample.
        batch: Prompts that are computed at once.

    Returns:
        Per sample the masks `(P, H, W)` bool at the image's size, by name; none where nothing was asked.
    """
    flat = [(owner, prompt) for owner, prompts in enumerate(asked) for prompt in prompts]
    encode = _encoder(grounder, samples)
    found: list[list[dict[str, Masks]]] = [[] for _ in samples]
    for start in range(0, len(flat), batch):
        owners, prompts = zip(*flat[start : start + batch], strict=True)
        images = [encode(owner) for owner in owners] if encode else None
        for owner, masks in zip(owners, _masks_of_batch(grounder, prompts, images), strict=True):
            found[owner].append(masks)
    return [
        {name: np.concatenate([masks[name] for masks in parts]) for name in parts[0]} if parts else {}
        for parts in found
    ]


def _encoder(grounder: Grounder, samples: Sequence[Sample]) -> Callable[[int], EncodedImage] | None:
    """What encodes the image of a sample for the refiner, equal ones once; None where nothing refines."""
    if not (isinstance(grounder, GroundedVLM) and grounder.refiner):
        return None
    sam = grounder.refiner.sam
    # By the pixels: that one id names one image is a promise of the data set, and may be broken.
    keys = [(sample.image.size, hashlib.sha256(sample.image.tobytes()).digest()) for sample in samples]
    images = {key: sample.image for key, sample in zip(keys, samples, strict=True)}
    encoded = cache(lambda key: sam.encode(images[key]))
    return lambda sample: encoded(keys[sample])


@torch.no_grad()
def _masks_of_batch(
    grounder: Grounder, prompts: Sequence[Prompt], images: Sequence[EncodedImage] | None
) -> list[dict[str, Masks]]:
    if not isinstance(grounder, GroundedVLM):
        groundings = grounder.ground_all(prompts)
        return [{"mask": np.stack([phrase.mask for phrase in found.phrases])} for found in groundings]
    of_prompts = []
    for prompt, logits in zip(prompts, grounder.mask_logits(prompts, images), strict=True):
        size = prompt.images[0].height, prompt.images[0].width
        placed = {"mask": place_map(logits.coarse, logits.box, size, outside=float("-inf"))}
        if logits.refined is not None:
            placed = {"coarse": placed["mask"], "refined": logits.refined}
        of_prompts.append({name: (each.sigmoid() > 0.5).cpu().numpy() for name, each in placed.items()})
    return of_prompts
