"""Tensors of a batch in which an image repeats: held once, and whole for whoever reads them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vlm_adapters.backbone.batch_tensors import BatchTensors

IDS = torch.arange(12).view(3, 4)
PATCHES = torch.arange(10.0).view(5, 2)
"""Of two images, the first of three patches."""


def select(
    features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    by_image = features["pixel_values"].split([height * width for height, width in sizes])
    return {"pixel_values": torch.cat([by_image[index] for index in indices])}


def batch(images: Sequence[int]) -> BatchTensors:
    return BatchTensors({"input_ids": IDS}, {"pixel_values": PATCHES}, [(3, 1), (1, 2)], images, select)


def test_an_image_is_repeated_as_often_as_the_batch_has_it() -> None:
    tensors = batch([0, 1, 0])
    assert list(tensors) == ["input_ids", "pixel_values"]
    assert len(tensors) == 2
    assert tensors["pixel_values"].tolist() == [*PATCHES.tolist(), *PATCHES[:3].tolist()]
    assert dict(**tensors)["input_ids"] is IDS


def test_what_is_held_has_every_image_once() -> None:
    assert sum(tensor.numel() for tensor in batch([0, 1, 0]).held()) == IDS.numel() + PATCHES.numel()


def test_images_are_chosen_by_their_place_in_the_batch() -> None:
    assert batch([1, 0, 1]).chosen([2, 1])["pixel_values"].tolist() == [*PATCHES[3:].tolist(), *PATCHES[:3].tolist()]


def test_images_that_all_differ_are_not_copied() -> None:
    assert batch([0, 1])["pixel_values"] is PATCHES


def test_pickled_tensors_are_plain() -> None:
    found = pickle.loads(pickle.dumps(batch([0, 1, 0])))  # noqa: S301 - our own
    assert type(found) is dict
    assert found["pixel_values"].shape == (8, 2)
