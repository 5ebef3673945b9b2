"""Hidden states of chosen positions after chosen layers of the language model, gathered by forward hooks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.language_model import language_model_of

_active: ContextVar[tuple[HiddenStates, ...]] = ContextVar("vlm_adapters_hidden_states", default=())


class HiddenStates:
    """Gathers hidden states at the requested positions, layer by layer, in one pass over a batch or cached steps of it.

    Attributes:
        states: Layer index -> `(T, D)` for every sequence, in the model's precision. The last layer's is after the
            final norm.
    """

    def __init__(self, layers: Collection[int], positions: Sequence[Tensor], device: torch.device) -> None:
        self.states: dict[int, list[Tensor]] = {}
        self._layers = frozenset(layers)
        self._positions = tuple(of_sequence.cpu() for of_sequence in positions)
        self._device = device
        self._tokens_seen: dict[int, int] = {}
        self._calls: dict[tuple[int, int, torch.device], list[tuple[Tensor, Tensor]]] = {}

    def at(self, sequence: int, layers: Sequence[int], width: int) -> Tensor:
        """States `(K, T, D)` of one sequence after these layers, in their order; `width` is D for an empty list."""
        if not layers:
            return torch.zeros(0, len(self._positions[sequence]), width, device=self._device)
        return torch.stack([self.states[layer][sequence] for layer in layers])

    def record(self, layer: int, states: Tensor) -> None:
        """Gather `states (B, S, D)` of a layer at the requested positions; a further call continues the sequence."""
        start = self._tokens_seen.get(layer, 0)
        self._tokens_seen[layer] = start + states.shape[1]
        found = []
        for sequence, (entries, places) in enumerate(self._of_call(start, states.shape[1], states.device)):
            gathered = states[sequence, places].to(self._device)
            if len(entries) < len(self._positions[sequence]):
                earlier = self.states[layer][sequence] if layer in self.states else None
                if earlier is None:
                    earlier = gathered.new_zeros(len(self._positions[sequence]), states.shape[2])
                gathered = earlier.index_copy(0, entries, gathered)
            found.append(gathered)
        self.states[layer] = found

    def _of_call(self, start: int, length: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """For every sequence which of its positions a call has, and where; the layers of a call have the same."""
        key = start, length, device
        if key not in self._calls:
            self._calls = {
                key: [
                    (entries.to(self._device), (positions[entries] - start).to(device))
                    for positions in self._positions
                    for entries in [((positions >= start) & (positions < start + length)).nonzero().flatten()]
                ]
            }
        return self._calls[key]

    def check_complete(self) -> None:
        """Make sure that every layer was recorded.

        Raises:
            CaptureError: Some layer was not recorded.
        """
        if missing := sorted(self._layers - self.states.keys()):
            raise CaptureError(
                f"The hidden states of layer {missing[0]} were not recorded: the model ran without the hooks on its "
                "layers. Load the backbone again, and give the adapter the model that runs."
            )


@contextmanager
def capture_hidden_states(
    model: PreTrainedModel, layers: Collection[int], positions: Sequence[Tensor], device: torch.device
) -> Iterator[HiddenStates]:
    """Gather hidden states of the language model in the forward pass that runs inside the block.

    The pass may be several calls that continue with a cache; positions count from the first token of the first.
    States carry gradient as the pass itself does. Threads that run the same model do not see each other's.

    Args:
        model: A transformers model.
        layers: Layers whose output is gathered; no hook is set for an empty list.
        positions: One LongTensor per sequence of the batch.
        device: Device of the result.

    Yields:
        The states; they are complete when the block ends.

    Raises:
        CaptureError: The layers are not found, or one of them did not run.
    """
    gathered = HiddenStates(layers, positions, device)
    hooks = []
    if layers:
        language_model = language_model_of(model)
        last = len(language_model.layers) - 1
        for layer in layers:
            module = language_model.body if layer == last else language_model.layers[layer]
            hooks.append(module.register_forward_hook(partial(_gather, gathered, layer)))
    token = _active.set((*_active.get(), gathered))
    try:
        yield gathered
    finally:
        _active.reset(token)
        for hook in hooks:
            hook.remove()
    gathered.check_complete()


def _gather(gathered: HiddenStates, layer: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
    if gathered not in _active.get():  # a pass of another thread
        return
    states = getattr(output, "last_hidden_state", None)
    if states is None:
        states = output[0] if isinstance(output, tuple) else output
    gathered.record(layer, states)
