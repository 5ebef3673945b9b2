"""The model's inputs for a batch in which one image may occur many times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor
from typing_extensions import override

from vlm_adapters.geometry import Size

SelectImages = Callable[[Mapping[str, Tensor], Sequence[int], Sequence[Size]], dict[str, Tensor]]
"""Chooses, of the tensors of images of these sizes, those of some by their indices, which may repeat."""


class BatchTensors(Mapping[str, Tensor]):
    """Keyword arguments of a model's forward; the pixels of an image that repeats are repeated when they are read.

    Args:
        of_tokens: Tensors with a value for every token of the batch.
        of_images: Tensors of the distinct images.
        sizes: `(H, W)` of the distinct images.
        images: For every image of the batch its index among the distinct ones.
        select: Chooses tensors of images.
        of_videos: Tensors of all videos of the batch.
    """

    def __init__(
        self,
        of_tokens: Mapping[str, Tensor],
        of_images: Mapping[str, Tensor],
        sizes: Sequence[Size],
        images: Sequence[int],
        select: SelectImages,
        of_videos: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.of_tokens, self.of_images = dict(of_tokens), dict(of_images)
        self.of_videos = dict(of_videos or {})
        self.images = tuple(images)
        self._sizes, self._select = tuple(sizes), select

    def held(self) -> list[Tensor]:
        """All tensors as they are, none repeated."""
        return [*self.of_tokens.values(), *self.of_images.values(), *self.of_videos.values()]

    def chosen(self, images: Sequence[int]) -> dict[str, Tensor]:
        """The tensors of some images of the batch, by their indices in it."""
        return self._select(self.of_images, [self.images[image] for image in images], self._sizes)

    @override
    def __getitem__(self, name: str) -> Tensor:
        for tensors in (self.of_tokens, self.of_videos):
            if name in tensors:
                return tensors[name]
        return self._of_all_images[name]

    @override
    def __iter__(self) -> Iterator[str]:
        yield from self.of_tokens
        yield from self.of_images
        yield from self.of_videos

    @override
    def __len__(self) -> int:
        return len(self.of_tokens) + len(self.of_images) + len(self.of_videos)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # without the function that selects, which may hold a model

    @cached_property
    def _of_all_images(self) -> dict[str, Tensor]:
        if self.images == tuple(range(len(self._sizes))):
            return self.of_images
        return self.chosen(range(len(self.images)))
