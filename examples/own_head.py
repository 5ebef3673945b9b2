"""A mask head of your own in the place of the U-Net, trained on scenes and evaluated on others.

    python examples/own_head.py [MODEL]

A head is one class: attention maps `(B, C, h, w)` in, logits `(B, h', w')` of the same region out.
"""

from __future__ import annotations

import sys
import tempfile

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vlm_adapters import GroundedVLM, load_adapter, open_dataset
from vlm_adapters.decoder import MaskDecoder, decoder_loss
from vlm_adapters.evaluation import EvaluationSettings, evaluate, open_for_protocol


class OwnHead(nn.Module):
    """Two convolutions over the maps, each map divided by its peak."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.GELU(), nn.Conv2d(32, 1, 3, padding=1))

    def forward(self, maps: Tensor) -> Tensor:
        """Compute logits `(B, h, w)`."""
        return self.layers(maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12))[:, 0]


def mean_iou(vlm: GroundedVLM) -> float:
    """Evaluate on held-out scenes."""
    scenes = open_for_protocol("scenes:count=16,seed=4", "packed")
    with tempfile.TemporaryDirectory() as folder:
        return evaluate(vlm, scenes, EvaluationSettings(protocol="packed"), folder).number("all", "mask", "mIoU").value


if __name__ == "__main__":
    torch.manual_seed(0)
    adapter = load_adapter(sys.argv[1] if len(sys.argv) > 1 else "tiny-qwen2_5_vl")
    vlm = GroundedVLM(adapter, MaskDecoder(OwnHead(adapter.info.channels))).to(adapter.info.device)
    optimizer = torch.optim.AdamW(vlm.parameters(), lr=1e-2)
    print(f"before: mean IoU {mean_iou(vlm):.3f}")
    for _ in range(6):
        for samples in DataLoader(open_dataset("scenes:count=48,seed=3"), 8, shuffle=True, collate_fn=list):
            logits = vlm([sample.prompt for sample in samples])
            loss = decoder_loss(logits, [sample.masks for sample in samples])
            optimizer.zero_grad()
            (loss / sum(len(sample.phrases) for sample in samples)).backward()
            optimizer.step()
    print(f"after:  mean IoU {mean_iou(vlm):.3f}")
