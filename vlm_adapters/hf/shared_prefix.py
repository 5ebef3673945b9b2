"""Prompts that begin with the same images and words: their beginning runs once, and their texts beside each other.

The texts follow one another in one sequence after the beginning, under masks in which each sees the beginning and
itself. A long beginning, and one whose images see each other both ways, runs by itself as any sequence does, and leaves
its keys and values in a cache; with any other, all of the sequence is one pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from vlm_adapters.backbone.batch_tensors import BatchTensors, SelectImages
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.protocol import SharedWork
from vlm_adapters.errors import BackboneError
from vlm_adapters.geometry import Size
from vlm_adapters.hf.text_masks import kernel_of, layer_kinds, masks_apart

AttentionPattern = Literal["undeclared", "causal", "bidirectional images", "bidirectional prefix"]
"""How the tokens of a family see each other; which layers see a sliding window only is in the config of the model.

`"causal"`: a token sees those before it. `"bidirectional images"`: so do all, and image tokens also see each other both
ways, within an image (Gemma 3) or all of a prompt (Molmo 2). `"bidirectional prefix"`: images and question see each
other both ways (PaliGemma), so the states of an image depend on the text. `"undeclared"`: nothing is assumed.
"""

PositionIds = Callable[[Mapping[str, Tensor]], Tensor]

CACHE_NAMES = ("cache", "past_key_values")
"""What the forward of a model may call its cache."""
_KERNELS = ("sdpa", "eager")
"""The kernels that take any mask over queries and keys."""
_MOST_IN_ONE_PASS = 4096
"""Tokens of a pass under a mask of its own: it has a value for every pair of them, which a causal pass has not."""


class UnknownFormError(BackboneError):
    """It is not known which part of a tensor belongs to which image."""


@dataclass(frozen=True)
class ForwardPass:
    """One pass of the model over some prompts of a batch.

    Attributes:
        calls: Keyword arguments of the model's forward; a second call continues with the cache of the first.
        images: The images of the pass in order, each as the index of the first one of the batch that equals it.
        prompts: For every sequence of the pass the indices of its prompts.
        places: For every prompt `(S,)`: the position in its sequence of every position of the batch.
    """

    calls: tuple[Mapping[str, Any], ...]
    images: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    places: Mapping[int, Tensor]


def can_share(model: PreTrainedModel, pattern: AttentionPattern) -> bool:
    """Whether masks can keep the texts of prompts apart in this model, and the states of a beginning are its own."""
    accepted = signature(type(model.base_model).forward).parameters
    return (
        pattern in ("causal", "bidirectional images")
        and layer_kinds(model) <= {"full_attention", "sliding_attention"}
        and kernel_of(model) in _KERNELS
        and "position_ids" in accepted
        and any(name in accepted for name in CACHE_NAMES)
    )


def shared_work(model: PreTrainedModel, pattern: AttentionPattern) -> SharedWork:
    """What prompts about one image compute once, for `BackboneInfo.shared`."""
    if can_share(model, pattern):
        return "beginning"
    return "image features" if hasattr(model.base_model, "get_image_features") else "nothing"


def process_distinct(
    images: Sequence[Sequence[Image.Image]],
    process_images: Callable[[Sequence[Sequence[Image.Image]]], BatchFeature],
    select: SelectImages,
) -> tuple[BatchFeature, list[int]]:
    """Process the images of prompts; of prompts with equal images once if the tensors can be divided by image.

    Returns:
        Features, and for every image of the prompts its index among those that were processed.
    """
    same = _same_images(images)
    count = sum(map(len, images))
    if len(set(same)) < count:
        indices = iter(same)
        of_prompts = [[next(indices) for _ in of_prompt] for of_prompt in images]
        every = [image for of_prompt in images for image in of_prompt]
        distinct = sorted({tuple(of_prompt) for of_prompt in of_prompts if of_prompt})
        chosen = [index for of_prompt in distinct for index in of_prompt]
        features = process_images([[every[index] for index in of_prompt] for of_prompt in distinct])
        of_images = {name: tensor for name, tensor in features.items() if tensor.shape != features["input_ids"].shape}
        try:
            select(of_images, [0], [(every[index].height, every[index].width) for index in chosen])
        except UnknownFormError:
            pass
        else:
            return features, [chosen.index(index) for index in same]
    return process_images([of_prompt for of_prompt in images if of_prompt]), list(range(count))


def tensors_of(inputs: BackboneInputs, select: SelectImages) -> BatchTensors:
    """The tensors of a batch, those of tokens apart from those of images."""
    if isinstance(inputs.tensors, BatchTensors):
        return inputs.tensors
    shape = inputs.tensors["input_ids"].shape
    images = [image for prompt in inputs.prompts for image in prompt.images]
    if any(prompt.videos for prompt in inputs.prompts):  # their passes are not divided
        return BatchTensors(inputs.tensors, {}, [], (), select)
    return BatchTensors(
        {name: tensor for name, tensor in inputs.tensors.items() if tensor.shape == shape},
        {name: tensor for name, tensor in inputs.tensors.items() if tensor.shape != shape},
        [(image.height, image.width) for image in images],
        range(len(images)),
        select,
    )


def select_lines(features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]) -> dict[str, Tensor]:
    """Choose images of tensors that have a line per image.

    Raises:
        UnknownFormError: They do not.
    """
    if wrong := [name for name, tensor in features.items() if len(tensor) != len(sizes)]:
        raise UnknownFormError(
            f"{', '.join(wrong)} do not have a line for each of {len(sizes)} images. Override `select_images`."
        )
    return {name: tensor[list(indices)] for name, tensor in features.items()}


def divide(
    model: PreTrainedModel,
    inputs: BackboneInputs,
    tensors: BatchTensors,
    pattern: AttentionPattern,
    position_ids: PositionIds,
) -> list[ForwardPass]:
    """Divide a batch into passes: one for each group of prompts with the same beginning, one for all the others.

    Args:
        model: The model.
        inputs: The batch.
        tensors: Its tensors; see `tensors_of`.
        pattern: How tokens see each other.
        position_ids: Positions `(..., 1, S)` of a sequence without padding, as the model counts them, from tensors of
            its tokens and sizes of its images on the CPU.
    """
    images = _same_images([prompt.images for prompt in inputs.prompts])
    repeated = len(inputs.prompts) > 1 and len(set(images)) < len(images)
    if repeated and not any(prompt.videos for prompt in inputs.prompts) and can_share(model, pattern):
        batch = _Batch(inputs, images, tensors)
        if groups := [group for group in batch.groups() if len(group) > 1]:
            together = {index for group in groups for index in group}
            alone = [index for index in range(len(inputs.prompts)) if index not in together]
            shared = [_packed(model, batch, group, position_ids, in_one=pattern == "causal") for group in groups]
            return [*shared, batch.separate(alone)] if alone else shared
    count, length = tensors.of_tokens["input_ids"].shape
    places = dict.fromkeys(range(count), torch.arange(length))
    return [ForwardPass((tensors,), tuple(images), tuple((b,) for b in range(count)), places)]


def _same_images(images: Sequence[Sequence[Image.Image]]) -> list[int]:
    """For every image of all prompts the index of the first that the model sees alike.

    Some families treat an image in another way beside others, so the images of prompts are alike all together.
    """
    equal = _first_equal([image for of_prompt in images for image in of_prompt])
    starts: dict[tuple[int, ...], int] = {}
    found: list[int] = []
    for of_prompt in images:
        start = len(found)
        first = starts.setdefault(tuple(equal[start : start + len(of_prompt)]), start)
        found += range(first, first + len(of_prompt))
    return found


def _first_equal(images: Sequence[Image.Image]) -> list[int]:
    """For every image the index of the first one that has the same pixels."""
    counts = Counter(image.size for image in images)
    of_object: dict[int, int] = {}  # an image object that occurs several times is read once
    of_pixels: dict[object, int] = {}
    for index, image in enumerate(images):
        if id(image) not in of_object:
            pixels = (image.size, image.tobytes()) if counts[image.size] > 1 else index
            of_object[id(image)] = of_pixels.setdefault(pixels, index)
    return [of_object[id(image)] for image in images]


class _Batch:
    """A batch, taken apart.

    Attributes:
        device: Device of the model's inputs.
        of_tokens: The tensors with a value per token of the padded batch, on the CPU.
        length: Length of its sequences.
        kept: For every prompt the positions that are not padding.
        ids: For every prompt its tokens without padding.
        image_tokens: For every prompt the positions of all its image tokens among these.
    """

    def __init__(self, inputs: BackboneInputs, same: Sequence[int], tensors: BatchTensors) -> None:
        self._same, self._tensors = same, tensors
        self.device = tensors.of_tokens["input_ids"].device
        # Taken apart on the CPU, in many small steps that an accelerator would be waited for.
        self.of_tokens = {name: tensor.cpu() for name, tensor in tensors.of_tokens.items()}
        self.length = self.of_tokens["input_ids"].shape[1]
        self.kept = [mask.nonzero().flatten() for mask in self.of_tokens["attention_mask"]]
        self.ids = [row[kept] for row, kept in zip(self.of_tokens["input_ids"], self.kept, strict=True)]
        counts = [len(prompt.images) for prompt in inputs.prompts]
        self._images = [range(sum(counts[:b]), sum(counts[: b + 1])) for b in range(len(counts))]
        self.image_tokens = [
            torch.cat([torch.empty(0, dtype=torch.long), *of_prompt]).sort().values - int(kept[0])
            for of_prompt, kept in zip(inputs.image_tokens, self.kept, strict=True)
        ]

    def groups(self) -> Iterator[list[int]]:
        """Prompts with the same images and the same words up to the last of them, in groups of bounded length."""
        ends = [int(tokens[-1]) + 1 if len(tokens) else 0 for tokens in self.image_tokens]
        alike: dict[object, list[int]] = {}
        for index, ids in enumerate(self.ids):
            key = tuple(self._same[image] for image in self._images[index]), tuple(ids[: ends[index]].tolist())
            alike.setdefault(key, []).append(index)
        for members in alike.values():
            group: list[int] = []
            beginning, texts = _common_length([self.ids[index] for index in members]), 0
            for index in members:
                text = len(self.ids[index]) - beginning
                if group and texts + text > beginning:  # more texts would cost more in the mask than they save
                    yield group
                    group, texts = [], 0
                group.append(index)
                texts += text
            yield group

    def images(self, prompts: Sequence[int]) -> tuple[dict[str, Tensor], tuple[int, ...]]:
        """The tensors of the images of some prompts, and which these are, as `ForwardPass` names them."""
        images = [image for index in prompts for image in self._images[index]]
        return self._tensors.chosen(images), tuple(self._same[image] for image in images)

    def tokens(self, index: int) -> dict[str, Tensor]:
        """The tensors of a prompt's tokens, `(1, S)`, without padding."""
        return {name: tensor[index : index + 1, self.kept[index]] for name, tensor in self.of_tokens.items()}

    def separate(self, prompts: Sequence[int]) -> ForwardPass:
        """The pass of some prompts, each a sequence."""
        tensors = {name: tensor[list(prompts)] for name, tensor in self._tensors.of_tokens.items()}
        of_images, images = self.images(prompts)
        places = dict.fromkeys(prompts, torch.arange(self.length))
        return ForwardPass((tensors | of_images,), images, tuple((index,) for index in prompts), places)


def _packed(
    model: PreTrainedModel, batch: _Batch, group: Sequence[int], position_ids: PositionIds, *, in_one: bool
) -> ForwardPass:
    """The common beginning of some prompts and all that follows it, in one call if that may be, else in two."""
    ids = [batch.ids[index] for index in group]
    common = _common_length(ids)
    of_images, images = batch.images(group[:1])
    sizes = {name: tensor.cpu() for name, tensor in of_images.items() if not tensor.is_floating_point()}
    tokens = [batch.tokens(index) for index in group]
    longest = max(tokens, key=lambda of_prompt: of_prompt["input_ids"].shape[1])
    positions = position_ids(longest | sizes)  # after the images all is text, whose positions are those of its places
    owners, orders, places, length = [torch.full((common,), -1)], [torch.arange(common)], {}, common
    for index, of_prompt in zip(group, ids, strict=True):
        text = torch.arange(common, len(of_prompt))
        place = torch.zeros(batch.length, dtype=torch.long)
        place[batch.kept[index]] = torch.cat([orders[0], text - common + length])
        places[index] = place
        owners.append(torch.full_like(text, index))
        orders.append(text)
        length += len(text)
    beginning = {name: tensor[..., :common] for name, tensor in tokens[0].items()}
    beginning["position_ids"] = positions[..., :common]
    moved = partial(_moved, batch.device)
    if length == common:
        return ForwardPass((moved(beginning) | of_images,), images, (tuple(group),), places)
    texts = {
        name: torch.cat([of_prompt[name][..., common:] for of_prompt in tokens], dim=-1) for name in batch.of_tokens
    }
    texts["position_ids"] = torch.cat([positions[..., common : len(of_prompt)] for of_prompt in ids], dim=-1)
    of_sequence = torch.cat(owners).to(batch.device), torch.cat(orders).to(batch.device)
    masks = partial(masks_apart, *of_sequence, model=model)
    if in_one and length <= _MOST_IN_ONE_PASS:
        whole = {name: torch.cat([tensor, texts[name]], dim=-1) for name, tensor in beginning.items()}
        calls: tuple[Mapping[str, Any], ...] = (moved(whole) | of_images | {"attention_mask": masks(0)},)
    else:
        after = {name: texts[name] for name in ("input_ids", "position_ids")}
        calls = moved(beginning) | of_images, moved(after) | {"attention_mask": masks(common)}
    return ForwardPass(calls, images, (tuple(group),), places)


def _moved(device: torch.device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _common_length(sequences: Sequence[Tensor]) -> int:
    """How many tokens at the beginning are the same in all sequences."""
    shortest = min(len(ids) for ids in sequences)
    same = torch.stack([ids[:shortest] == sequences[0][:shortest] for ids in sequences]).all(dim=0)
    return int(same.long().cumprod(0).sum())
