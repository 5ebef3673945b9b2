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
    """Gathers hidden states at the requested positions, layer by layer, in one pass over a batch.

    Attributes:
        states: Layer index -> `(T, D)` for every sequence, in the model's precision. The last layer's is after the
            final norm.
    """

    def __init__(self, layers: Collection[int], positions: Sequence[Tensor], device: torch.device) -> None:
        self.states: dict[int, list[Tensor]] = {}
        self._layers = frozenset(layers)
        self._positions = tuple(positions)
        self._device = device
        self._positions_by_device: dict[torch.device, list[Tensor]] = {}

    def at(self, sequence: int, layers: Sequence[int], width: int) -> Tensor:
        """States `(K, T, D)` of one sequence after these layers, in their order; `width` is D for an empty list."""
        if not layers:
            return torch.zeros(0, len(self._positions[sequence]), width, device=self._device)
        return torch.stack([self.states[layer][sequence] for layer in layers])

    def record(self, layer: int, states: Tensor) -> None:
        """Gather `states (B, S, D)` of a layer at the requested positions."""
        if states.device not in self._positions_by_device:
            self._positions_by_device[states.device] = [indices.to(states.device) for indices in self._positions]
        self.states[layer] = [
            sequence[indices].to(self._device)
            for sequence, indices in zip(states, self._positions_by_device[states.device], strict=True)
        ]

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
