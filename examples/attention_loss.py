"""Tune a backbone by where its words look: the loss is the attention of a phrase outside its mask.

    pip install peft
    python examples/attention_loss.py [MODEL]

`GridRequest(gradient=True)` lets attention carry gradient into whatever parameters require it, here LoRA weights beside
the query and key projections. The backbone's own weights stay as they are. `peft` is not a dependency of the library.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model

from vlm_adapters import BackboneAdapter, GridRequest, load_adapter, open_dataset
from vlm_adapters.data import Sample

STEPS, BATCH = 12, 8


def share_inside(adapter: BackboneAdapter, samples: Sequence[Sample]) -> torch.Tensor:
    """`(P,)` in [0, 1]: how much of what a phrase looks at in the image lies inside its mask."""
    request = GridRequest(layers=2, gradient=True)
    shares = []
    extracted = adapter.extract(adapter.preprocess([sample.prompt for sample in samples]), request)
    for sample, grids in zip(samples, extracted, strict=True):
        masks = torch.from_numpy(sample.masks)
        maps = grids[-1].grid.place(grids[-1].attention.mean(dim=(1, 2)), masks.shape[1:])
        shares.append((maps * masks.to(maps.device)).sum(dim=(1, 2)) / maps.sum(dim=(1, 2)))
    return torch.cat(shares)


def main() -> None:
    """Train a few steps, and print how much of the attention lies inside on scenes that were not trained on."""
    torch.manual_seed(0)
    adapter = load_adapter(sys.argv[1] if len(sys.argv) > 1 else "tiny-qwen2_5_vl")
    model, held_out = adapter.model, open_dataset("scenes:count=16,seed=4")
    # not model.add_adapter: releases of transformers ask there for a peft that is not published yet
    inject_adapter_in_model(LoraConfig(r=4, target_modules=r".*language_model.*\.(q|k)_proj"), model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    print(f"{sum(map(torch.numel, trained))} LoRA weights for {model.num_parameters()} weights in all")
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    with torch.no_grad():
        print(f"before: {share_inside(adapter, held_out).mean():.3f} of the attention lies inside the mask")
    for step in range(STEPS):
        scenes = open_dataset(f"scenes:count={BATCH},first={step * BATCH}")
        loss = 1 - share_inside(adapter, scenes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(f"after:  {share_inside(adapter, held_out).mean():.3f}")


if __name__ == "__main__":
    main()
