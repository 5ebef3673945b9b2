"""Prompts that begin with the same images and words: their beginning runs once, and their texts beside each other.

The texts follow one another in one sequence, under a mask in which each sees the beginning and itself. The image then
passes the vision tower once, and the pass has the tokens of one beginning and all texts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from vlm_adapters.backbone.grids import BackboneInputs

SelectImages = Callable[[Mapping[str, Tensor], Sequence[int]], dict[str, Tensor]]
PositionIds = Callable[[Mapping[str, Tensor]], Tensor]

_KERNELS = ("sdpa", "eager")
"""The kernels that take any mask over queries and keys."""


@dataclass(frozen=True)
class ForwardPass:
    """One pass of the model over some prompts of a batch.

    Attributes:
        tensors: Keyword arguments of the model's forward.
        prompts: For every sequence of the pass the indices of its prompts.
        places: For every prompt `(S,)`: the position in its sequence of every position of the batch.
    """

    tensors: Mapping[str, Tensor]
    prompts: tuple[tuple[int, ...], ...]
    places: Mapping[int, Tensor]


def can_share(model: PreTrainedModel) -> bool:
    """Whether a mask can keep texts apart in this model: every layer is causal attention over all earlier tokens."""
    config = model.config.get_text_config(decoder=True)
    return (
        set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        and config._attn_implementation in _KERNELS  # noqa: SLF001 - transformers has no public reader
        and "position_ids" in signature(type(model.base_model).forward).parameters
    )


def process_distinct(
    images: Sequence[Image.Image], process_images: Callable[[Sequence[Image.Image]], BatchFeature], select: SelectImages
) -> dict[str, Tensor]:
    """Process images of which some may be equal, each of them once; the result is that of all of them."""
    first = _first_equal(images)
    distinct = sorted(set(first))
    features = dict(process_images([images[index] for index in distinct]))
    if len(distinct) == len(images):
        return features
    chosen = [distinct.index(index) for index in first]
    shape = features["input_ids"].shape
    tokens = {name: tensor for name, tensor in features.items() if tensor.shape == shape}
    others = {name: tensor for name, tensor in features.items() if name not in tokens}
    return {name: tensor[chosen] for name, tensor in tokens.items()} | select(others, chosen)


def _first_equal(images: Sequence[Image.Image]) -> list[int]:
    """For every image the index of the first one that has the same pixels."""
    counts = Counter(image.size for image in images)
    first: dict[object, int] = {}
    found = []
    for index, image in enumerate(images):
        alone = counts[image.size] == 1
        key = index if alone else (image.size, hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        found.append(first.setdefault(key, index))
    return found


def shared_passes(
    model: PreTrainedModel,
    inputs: BackboneInputs,
    select_images: SelectImages,
    position_ids: PositionIds,
) -> list[ForwardPass]:
    """Divide a batch into passes: one for each group of prompts with the same beginning, one for all the others.

    Args:
        model: The model; `can_share` holds for it.
        inputs: The batch.
        select_images: Chooses, of the tensors of all images of the batch, those of some.
        position_ids: Positions `(..., 1, S)` of a sequence without padding, as the model counts them.
    """
    batch = _Batch(inputs)
    groups = [group for group in batch.groups() if len(group) > 1]
    shared = [_packed(model, batch, group, select_images, position_ids) for group in groups]
    together = {index for group in groups for index in group}
    alone = [index for index in range(len(inputs.prompts)) if index not in together]
    if not shared:
        return [separate_pass(inputs)]
    if alone:
        tensors = {name: tensor[alone] for name, tensor in batch.of_tokens.items()}
        tensors |= select_images(batch.of_images, [image for index in alone for image in batch.images[index]])
        every = torch.arange(batch.length)
        shared.append(ForwardPass(tensors, tuple((index,) for index in alone), dict.fromkeys(alone, every)))
    return shared


def separate_pass(inputs: BackboneInputs) -> ForwardPass:
    """The pass of a batch as it is, every prompt a sequence of its own."""
    count, length = inputs.tensors["input_ids"].shape
    every = torch.arange(length)
    return ForwardPass(inputs.tensors, tuple((b,) for b in range(count)), dict.fromkeys(range(count), every))


class _Batch:
    """A batch, taken apart: the tokens of every prompt without padding, and which images it has.

    Attributes:
        of_tokens: The tensors with a value per token of the padded batch.
        of_images: The others.
        images: For every prompt the indices of its images in the batch.
        kept: For every prompt the positions that are not padding.
    """

    def __init__(self, inputs: BackboneInputs) -> None:
        shape = inputs.tensors["input_ids"].shape
        self.of_tokens = {name: tensor for name, tensor in inputs.tensors.items() if tensor.shape == shape}
        self.of_images = {name: tensor for name, tensor in inputs.tensors.items() if tensor.shape != shape}
        self.length = shape[1]
        self.kept = [mask.nonzero().flatten() for mask in inputs.tensors["attention_mask"].cpu()]
        self.ids = [row[kept] for row, kept in zip(inputs.tensors["input_ids"].cpu(), self.kept, strict=True)]
        counts = [len(prompt.images) for prompt in inputs.prompts]
        self.images = [range(sum(counts[:b]), sum(counts[: b + 1])) for b in range(len(counts))]
        self._same = _first_equal([image for prompt in inputs.prompts for image in prompt.images])
        self._ends = [
            int(torch.cat(list(tokens)).max()) + 1 - int(kept[0])
            for tokens, kept in zip(inputs.image_tokens, self.kept, strict=True)
        ]

    def groups(self) -> Iterator[list[int]]:
        """Prompts with the same images and the same words up to the last of them, in groups of bounded length."""
        alike: dict[object, list[int]] = {}
        for index, ids in enumerate(self.ids):
            key = tuple(self._same[image] for image in self.images[index]), tuple(ids[: self._ends[index]].tolist())
            alike.setdefault(key, []).append(index)
        for members in alike.values():
            group: list[int] = []
            beginning, texts = self._ends[members[0]], 0
            for index in members:
                text = len(self.ids[index]) - beginning
                if group and texts + text > beginning:  # more texts would cost more in the mask than they save
                    yield group
                    group, texts = [], 0
                group.append(index)
                texts += text
            yield group

    def tensors(self, index: int) -> dict[str, Tensor]:
        """The tensors of a prompt's tokens, `(1, S)`, without padding."""
        return {name: tensor[index : index + 1, self.kept[index]] for name, tensor in self.of_tokens.items()}


def _packed(
    model: PreTrainedModel,
    batch: _Batch,
    group: Sequence[int],
    select_images: SelectImages,
    position_ids: PositionIds,
) -> ForwardPass:
    """One sequence of the common beginning of some prompts and all that follows it."""
    ids = [batch.ids[index] for index in group]
    common = _common_length(ids)
    images = select_images(batch.of_images, batch.images[group[0]])
    tokens = [batch.tensors(index) for index in group]
    positions = [position_ids(of_prompt | images) for of_prompt in tokens]
    owners, places, length = [torch.full((common,), -1)], {}, common
    for number, (index, of_prompt) in enumerate(zip(group, ids, strict=True)):
        text = len(of_prompt) - common
        place = torch.zeros(batch.length, dtype=torch.long)
        place[batch.kept[index]] = torch.cat([torch.arange(common), torch.arange(length, length + text)])
        places[index] = place
        owners.append(torch.full((text,), number))
        length += text
    joined = {
        name: _joined([of_prompt[name] for of_prompt in tokens], common)
        for name in batch.of_tokens
        if name != "attention_mask"
    }
    mask = _mask(torch.cat(owners), model).to(joined["input_ids"].device)
    tensors = joined | images | {"position_ids": _joined(positions, common), "attention_mask": mask}
    return ForwardPass(tensors, (tuple(group),), places)


def _common_length(sequences: Sequence[Tensor]) -> int:
    """How many tokens at the beginning are the same in all sequences."""
    shortest = min(len(ids) for ids in sequences)
    same = torch.stack([ids[:shortest] == sequences[0][:shortest] for ids in sequences]).all(dim=0)
    return int(same.long().cumprod(0).sum())


def _joined(sequences: Sequence[Tensor], common: int) -> Tensor:
    """The beginning of the first and the rests of all, along the last axis."""
    return torch.cat([sequences[0][..., :common], *(sequence[..., common:] for sequence in sequences)], dim=-1)


def _mask(owners: Tensor, model: PreTrainedModel) -> Tensor:
    """Mask `(1, 1, S, S)`: a token sees those before it that are of the beginning, owner -1, or of its own text."""
    order = torch.arange(len(owners))
    seen = (order[:, None] >= order) & ((owners == -1) | (owners[:, None] == owners))
    if model.config.get_text_config(decoder=True)._attn_implementation == "sdpa":  # noqa: SLF001 - as above
        return seen[None, None]
    return torch.zeros(seen.shape, dtype=model.dtype).masked_fill_(~seen, torch.finfo(model.dtype).min)[None, None]
