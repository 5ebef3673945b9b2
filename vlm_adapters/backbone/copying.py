"""Inputs that are copied to the backbone's device while it works on those before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vlm_adapters.backbone.grids import BackboneInputs


@dataclass(frozen=True)
class DeviceInputs:
    """A backbone's inputs on its device, where their copies may still be under way.

    Attributes:
        inputs: The inputs.
        copied: Marks the end of the copies; None where nothing is under way.
    """

    inputs: BackboneInputs
    copied: torch.cuda.Event | None = None

    def ready(self) -> BackboneInputs:
        """The inputs, whose copies the device's next work waits for."""
        if self.copied is not None:
            tensors = [tensor for tensor in self.inputs.tensors.values() if tensor.is_cuda]
            for device in {tensor.device for tensor in tensors}:
                torch.cuda.current_stream(device).wait_event(self.copied)
            for tensor in tensors:
                tensor.record_stream(torch.cuda.current_stream(tensor.device))  # its memory is not reused before
        return self.inputs


class CopyStream:
    """A stream of its own for copies to a CUDA device, beside the one on which the backbone runs.

    Args:
        device: The backbone's device; on any other than CUDA nothing is done beside its work.
    """

    def __init__(self, device: str) -> None:
        self._stream = torch.cuda.Stream(device) if torch.device(device).type == "cuda" else None

    def copied(self, preprocess: Callable[[], BackboneInputs]) -> DeviceInputs:
        """Call what makes inputs on the device."""
        if self._stream is None:
            return DeviceInputs(preprocess())
        with torch.cuda.stream(self._stream):
            return DeviceInputs(preprocess(), self._stream.record_event())
