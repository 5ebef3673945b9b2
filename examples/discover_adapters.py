"""Someone else's trainer: its config names a backbone, and whatever plugin is installed for it is found.

    python examples/discover_adapters.py [MODEL]

The trainer names no family and imports no plugin. A plugin is found by its entry point, and says of its backbone all
that sizes a head: channels, width and cells. A backbone that nobody adapts is an error that says what there is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import nn

from vlm_adapters import AdapterError, GridRequest, list_adapters, load_adapter, open_dataset


@dataclass(frozen=True)
class TrainerConfig:
    """What a user of the trainer writes."""

    backbone: str = "tiny-llava"
    device: str = "auto"


def main() -> None:
    """Show what is installed, load what the config names, and run a head of its size once."""
    config = TrainerConfig(*sys.argv[1:2])
    for entry in list_adapters():
        print(f"{entry.name!s:20} {entry.state:16} from {entry.distribution}")
    try:
        adapter = load_adapter(config.backbone, device=config.device)
    except AdapterError as error:
        sys.exit(f"The config's backbone cannot be used: {error}")
    info = adapter.info
    print(f"{config.backbone} is a {info.model_type}: {info.channels} channels, width {info.hidden_size}")
    head = nn.Conv2d(info.channels // len(info.grids) + info.hidden_size, 1, 1).to(info.device)
    inputs = adapter.preprocess([open_dataset("scenes:count=1")[0].prompt])
    finest = adapter.extract(inputs, GridRequest(hidden_layers=1))[0][-1]
    states = finest.hidden.expand(len(finest.channels), -1, -1, -1)
    logits = head(torch.cat([finest.channels, states], dim=1))
    print(f"logits {tuple(logits.shape)}: phrases, 1, rows and columns of cells")


if __name__ == "__main__":
    main()
