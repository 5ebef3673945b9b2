"""Digests by which weights, files and settings are recognised: equal for equal content, different after a change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.modules import modules_of

_VALUES_PER_TENSOR = 16
_PLACES, _BYTES_PER_PLACE = 64, 4096


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Digest of a state dict: names, shapes and a few values of every tensor.

    It is quick on a large model and changes when weights are trained; an edit of single values can escape it. Tensors
    on the meta device have no values: only their names and shapes count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:
            values = tensor.detach()
            # of sharded weights (DTensor), the share of this process
            flat = (values.to_local() if hasattr(values, "to_local") else values).flatten()
            flat = torch.view_as_real(flat).flatten() if flat.is_complex() else flat
            places = torch.linspace(0, max(len(flat) - 1, 0), min(_VALUES_PER_TENSOR, len(flat)), dtype=torch.float64)
            digest.update(flat[places.long().to(flat.device)].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class ModuleFingerprint:
    """Digest of the weights of a module, computed again only after they changed."""

    def __init__(self) -> None:
        self._last: tuple[tuple[int, int], str] | None = None

    def of(self, module: nn.Module) -> str:
        """Digest of parameters and buffers; a state dict would let quantised layers repack their weights."""
        changes = _changes(module)
        if self._last is None or self._last[0] != (id(module), changes):
            weights = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            self._last = (id(module), changes), weights_fingerprint(weights)
        return self._last[1]


def _changes(module: nn.Module) -> int:
    """How often the parameters were changed in place; `parameters()` takes five times as long."""
    return sum(
        weight._version  # noqa: SLF001 - torch counts changes in place there
        for part in modules_of(module)
        for weight in part._parameters.values()  # noqa: SLF001
        if weight is not None and not weight.is_inference()
    )


def file_fingerprint(path: Path) -> tuple[str, int, str]:
    """Name, size and a digest of pieces spread over a file of weights: quick without loading it."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as content:
        for place in range(_PLACES):
            content.seek(place * max(size - _BYTES_PER_PLACE, 0) // (_PLACES - 1))
            digest.update(content.read(_BYTES_PER_PLACE))
    return path.name, size, digest.hexdigest()


def json_fingerprint(content: object) -> str:
    """Digest of anything that JSON can write; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
