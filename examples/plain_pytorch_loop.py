"""A plain PyTorch loop over an adapter's grids: a head of two convolutions learns to turn attention into masks.

    python examples/plain_pytorch_loop.py [MODEL]

Nothing here knows a family: `adapter.info` sizes the head, and `place_map` puts what it says where the grid stands in
the image. The backbone is frozen and gives no gradient.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

from vlm_adapters import GridRequest, load_adapter, open_dataset
from vlm_adapters.decoder import dice_loss, mask_loss

SCENES, BATCH, EPOCHS = "scenes:count=48", 8, 3


def main() -> None:
    """Train, and print the mean loss of every epoch."""
    torch.manual_seed(0)
    adapter = load_adapter(sys.argv[1] if len(sys.argv) > 1 else "tiny-qwen2_5_vl")
    channels = len(adapter.info.attention_layers) * adapter.info.num_heads
    layers = (nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1))
    head = nn.Sequential(nn.InstanceNorm2d(channels), *layers).to(adapter.info.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for epoch in range(EPOCHS):
        losses = []
        for samples in DataLoader(open_dataset(SCENES), BATCH, shuffle=True, collate_fn=list):
            inputs = adapter.preprocess([sample.prompt for sample in samples])
            loss = torch.zeros((), device=adapter.info.device)
            for sample, grids in zip(samples, adapter.extract(inputs, GridRequest()), strict=True):
                masks = torch.from_numpy(sample.masks).to(adapter.info.device)
                finest = grids[-1]
                logits = finest.grid.place(head(finest.channels)[:, 0], masks.shape[1:])
                loss = loss + (mask_loss(logits, masks) + dice_loss(logits, masks)) / len(samples)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}  loss {sum(losses) / len(losses):.3f}")


if __name__ == "__main__":
    main()
