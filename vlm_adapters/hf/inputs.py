"""From prompts to the inputs of a transformers model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from inspect import signature
from itertools import pairwise
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, PreTrainedModel

from vlm_adapters.backbone.batch_tensors import BatchTensors
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.embedded.unlike_scenes import warn_about
from vlm_adapters.errors import BackboneError
from vlm_adapters.geometry import Size
from vlm_adapters.hf.answers import check_ids, encode_prompt
from vlm_adapters.hf.chat import Expansion, RenderedPrompt, pad, phrase_positions
from vlm_adapters.hf.lengths import check_length
from vlm_adapters.hf.placement import pixel_dtype
from vlm_adapters.hf.shared_prefix import process_distinct
from vlm_adapters.hf.videos import take_expansions
from vlm_adapters.prompt import Prompt
from vlm_adapters.video import Video


class _Backbone(Protocol):
    """What is read of an adapter."""

    processor: Any

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def image_token_ids(self) -> frozenset[int]: ...

    def process_images(self, images: Sequence[Sequence[Image.Image]]) -> BatchFeature: ...

    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]: ...

    @property
    def video_token_ids(self) -> frozenset[int]: ...

    def process_videos(self, videos: Sequence[Video]) -> BatchFeature: ...

    def render(self, prompt: Prompt) -> RenderedPrompt: ...


def warn_about_images(checkpoint: str, prompts: Sequence[Prompt]) -> None:
    """Warn if a model of this library is given an image, or a video, that is unlike those of its training."""
    media = [part for prompt in prompts for part in prompt.media]
    warn_about(checkpoint, [part.frames[0] if isinstance(part, Video) else part for part in media])


def inputs_of(backbone: _Backbone, prompts: Sequence[Prompt]) -> BackboneInputs:
    """Process the images of prompts, each distinct one once, render and tokenize their texts, and pad them to a batch.

    Raises:
        PromptError: A prompt cannot be encoded, or is too long for the model.
    """
    images = [image for prompt in prompts for image in prompt.images]
    features, of_distinct, distinct, type_name = _of_images(backbone, prompts)
    of_images = iter([of_distinct[index] for index in distinct])
    of_videos, video_features = _of_videos(backbone, prompts)
    tokenizer = backbone.processor.tokenizer
    counted = backbone.image_token_ids | (backbone.video_token_ids if video_features else frozenset())
    sequences, positions = [], []
    for prompt in prompts:
        of_prompt = [next(of_videos if isinstance(part, Video) else of_images) for part in prompt.media]
        check_ids(prompt, backbone.model)
        sequence, rendered = encode_prompt(tokenizer, prompt, backbone.render, of_prompt, counted)
        sequences.append(sequence)
        positions.append([phrase_positions(sequence, rendered, prompt, phrase) for phrase in prompt.phrases])
    check_length(max(len(sequence.ids) for sequence in sequences), backbone.model)
    tensors, shifts = pad(sequences, tokenizer, type_name)
    firsts = [images[distinct.index(number)] for number in range(len(of_distinct))]
    return BackboneInputs(
        prompts=tuple(prompts),
        tensors=BatchTensors(
            _accepted(backbone, tensors),
            _accepted(backbone, features),
            [(image.height, image.width) for image in firsts],
            distinct,
            backbone.select_images,
            _accepted(backbone, video_features),
        ),
        phrase_tokens=tuple(
            tuple(torch.tensor(phrase) + shift for phrase in phrases)
            for phrases, shift in zip(positions, shifts, strict=True)
        ),
        image_tokens=tuple(
            tuple(
                torch.tensor([p + shift for p in image if sequence.ids[p] in counted]).long()
                for image in sequence.images
            )
            for sequence, shift in zip(sequences, shifts, strict=True)
        ),
    )


def _of_images(
    backbone: _Backbone, prompts: Sequence[Prompt]
) -> tuple[dict[str, Tensor], list[Expansion], list[int], str]:
    """Process the images of prompts.

    Returns:
        The tensors of the distinct images, the tokens of each, for every image of the prompts its index among them,
        and the name of the types of tokens.
    """
    of_prompts = [prompt.images for prompt in prompts]
    if not any(of_prompts):
        return {}, [], [], "mm_token_type_ids"
    found, distinct = process_distinct(of_prompts, backbone.process_images, backbone.select_images)
    features = dict(found)
    ids, mask = features.pop("input_ids"), features.pop("attention_mask").bool()
    type_name, types = _types(features, ids, backbone.image_token_ids)
    of_distinct: list[Expansion] = [
        (ids[image][keep].tolist(), types[image][keep].tolist()) for image, keep in enumerate(mask)
    ]
    return features, of_distinct, distinct, type_name


def _of_videos(backbone: _Backbone, prompts: Sequence[Prompt]) -> tuple[Iterator[Expansion], dict[str, Tensor]]:
    """Process the videos of prompts: the tokens of each, and their tensors."""
    videos = [video for prompt in prompts for video in prompt.videos]
    if not videos:
        return iter(()), {}
    features = dict(backbone.process_videos(videos))
    return iter(take_expansions(features, backbone.video_token_ids)), features


def process_images(
    processor: Any,
    images: Sequence[Sequence[Image.Image]],
    image_token_ids: Collection[int],
    options: Mapping[str, Any],
) -> BatchFeature:
    """Run a processor over the images of prompts without their texts, with a line of tokens for each image.

    Args:
        processor: A processor of transformers.
        images: For every prompt its images.
        image_token_ids: Ids of tokens that show an image, for processors that do not give the types of tokens.
        options: Passed to the processor.

    Raises:
        BackboneError: The processor does not leave the end token between the images of a prompt.
    """
    tokenizer, counts = processor.tokenizer, [len(of_prompt) for of_prompt in images]
    features: BatchFeature = processor(
        text=[tokenizer.eos_token.join([processor.image_token] * count) for count in counts],
        images=[list(of_prompt) for of_prompt in images],
        padding=True,
        add_special_tokens=False,
        return_tensors="pt",
        **{"return_mm_token_type_ids": True, **options},
    )
    if max(counts) == 1:
        return features
    type_name, types = _types(features, features["input_ids"], image_token_ids)
    ids, mask = features["input_ids"], features["attention_mask"].bool()
    lines: list[tuple[Tensor, Tensor]] = []
    for of_prompt, of_types, keep, count in zip(ids, types, mask, counts, strict=True):
        ends = (of_prompt[keep] == tokenizer.eos_token_id).nonzero().flatten().tolist()
        if len(ends) != count - 1:
            raise BackboneError(
                f"{type(processor).__name__} was given {count} images with {tokenizer.eos_token!r} between them, and "
                f"left it {len(ends)} times. Override `process_images` to give a line of tokens for each image."
            )
        bounds = [-1, *ends, int(keep.sum())]
        lines += [
            (of_prompt[keep][start + 1 : end], of_types[keep][start + 1 : end]) for start, end in pairwise(bounds)
        ]
    for name, padded in (("input_ids", [line[0] for line in lines]), (type_name, [line[1] for line in lines])):
        features[name] = pad_sequence(padded, batch_first=True)
    features["attention_mask"] = pad_sequence([torch.ones_like(line[0]) for line in lines], batch_first=True)
    return features


def _types(features: MutableMapping[str, Any], ids: Tensor, image_token_ids: Collection[int]) -> tuple[str, Tensor]:
    """Take the types of tokens out of a processor's features, with their name; of image tokens where it gives none."""
    # Processors give the types under the name that their model's forward takes.
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in features:
            return name, features.pop(name)
    return "mm_token_type_ids", torch.isin(ids, torch.tensor(sorted(image_token_ids))).long()


def _accepted(backbone: _Backbone, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that the model's forward takes, on the model's device; pixels in the precision of its weights.

    Numbers that are not pixels, such as seconds, keep theirs.
    """
    accepted = signature(type(backbone.model).forward).parameters
    dtype = pixel_dtype(backbone.model)
    return {
        name: tensor.to(backbone.device, dtype if tensor.is_floating_point() and tensor.ndim > 1 else tensor.dtype)
        for name, tensor in tensors.items()
        if name in accepted
    }
