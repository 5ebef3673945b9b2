"""The maps of a pass, written layer by layer into the tensors that are returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor


class RecordedMaps:
    """Maps `(G, L, n, C)` of every sequence of a batch.

    Without gradient every layer is written into its place at once, so that no map is held twice. Layers with gradient
    are kept apart until they are read.

    Args:
        sizes: For every sequence its number of maps `G` and of columns `C`.
        layers: The distinct layers, in the order of axis `L`.
        maximum: Whether maps of further calls are joined by their maximum, and not by their sum.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], layers: Sequence[int], *, maximum: bool) -> None:
        self._sizes = tuple(sizes)
        self._places = {layer: place for place, layer in enumerate(layers)}
        self._maximum = maximum
        self._tensors: list[Tensor] = []
        self._written: set[int] = set()
        self._apart: dict[int, list[Tensor]] = {}

    def add(self, layer: int, maps: Tensor) -> None:
        """Join `(B, n, G, C)`, padded to the largest `G` and `C`, with the maps of the layer so far."""
        found = [
            maps[sequence, :, :count, :columns].transpose(0, 1) for sequence, (count, columns) in enumerate(self._sizes)
        ]
        if maps.requires_grad:
            earlier = self.of_layer(layer)
            join = torch.maximum if self._maximum else torch.add
            self._apart[layer] = [join(*pair) for pair in zip(earlier, found, strict=True)] if earlier else found
            return
        for target, of_sequence in zip(self._to_write(layer, maps), found, strict=True):
            if self._maximum:
                torch.maximum(target, of_sequence.to(target.device), out=target)
            else:
                target.add_(of_sequence.to(target.device))

    def put(self, layer: int, rows: Tensor, slots: Tensor, counts: Mapping[int, int]) -> None:
        """Write rows that are a map each, without gradient: so the work of a call does not grow with all that is kept.

        Args:
            layer: Their layer.
            rows: `(b, n, R, C)`, padded, of `b` sequences.
            slots: `(b, R)`: which map each row is.
            counts: By the index of each of these sequences, the number of its rows.
        """
        targets = self._to_write(layer, rows)
        for index, (sequence, count) in enumerate(counts.items()):
            target, columns = targets[sequence], self._sizes[sequence][1]
            found = rows[index, :, :count, :columns].transpose(0, 1).to(target.device)
            target.index_copy_(0, slots[index, :count].to(target.device), found)

    def layers(self) -> list[int]:
        """The layers that were recorded, ascending."""
        return sorted(self._written | self._apart.keys())

    def of_layer(self, layer: int) -> list[Tensor]:
        """Maps `(G, n, C)` of every sequence in a layer; an empty list if none was recorded."""
        if layer in self._apart:
            return self._apart[layer]
        return self._in_place(layer) if layer in self._written else []

    def of_sequence(self, sequence: int) -> Tensor:
        """Maps `(G, L, n, C)` of a sequence in all layers, when they have been recorded."""
        if not self._apart:
            return self._tensors[sequence]
        device = self._apart[min(self._apart)][sequence].device
        return torch.stack([self.of_layer(layer)[sequence].to(device) for layer in self._places], dim=1)

    def tensors(self) -> Iterator[Tensor]:
        """Everything that is held."""
        yield from self._tensors
        for of_layer in self._apart.values():
            yield from of_layer

    def _to_write(self, layer: int, like: Tensor) -> list[Tensor]:
        """The maps `(G, n, C)` of every sequence in a layer, which are to be written; all zero at first."""
        if not self._tensors:
            self._tensors = [
                like.new_zeros(count, len(self._places), like.shape[1], columns) for count, columns in self._sizes
            ]
        self._written.add(layer)
        return self._in_place(layer)

    def _in_place(self, layer: int) -> list[Tensor]:
        return [tensor[:, self._places[layer]] for tensor in self._tensors]
