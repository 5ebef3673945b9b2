"""The interface of F-LMM around a `GroundedVLM`, for trainers that call `compute_loss(samples)` and `predict(sample)`.

    python examples/frozen_vlm.py

Samples are those of any data set here. The backbone is frozen, as is a presence head; what is trained is the decoder
and, if there is one, the refiner, whose masks are trained beside the coarse ones. Logits and masks are at the size of
the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlm_adapters import GroundedVLM, load_adapter, open_dataset
from vlm_adapters.data import Sample
from vlm_adapters.decoder import accuracy, dice_loss, mask_loss, mean_iou


class FrozenVLM(nn.Module):
    """A trainable module whose backbone is not."""

    def __init__(self, vlm: GroundedVLM) -> None:
        super().__init__()
        self.vlm = vlm
        if vlm.decoder.presence is not None:
            vlm.decoder.presence.requires_grad_(requires_grad=False)

    def forward(self, sample: Sample) -> list[Tensor]:
        """Logits `(P, H, W)`: coarse, then refined if there is a refiner."""
        (found,) = self.vlm.mask_logits([sample.prompt])
        coarse = found.coarse_at_image_size(sample.masks.shape[1:])
        return [coarse] if found.refined is None else [coarse, found.refined]

    def compute_loss(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Losses and agreement, samples weighted by their number of phrases. The first, `loss`, is to be minimised."""
        rows, count = [], sum(len(sample.phrases) for sample in samples)
        for sample in samples:
            logits, masks = self(sample), torch.from_numpy(sample.masks).to(self.vlm.adapter.info.device)
            losses = [sum(measure(one, masks) for one in logits) for measure in (mask_loss, dice_loss)]
            agreement = accuracy(logits[-1], masks), mean_iou(logits[-1], masks)
            rows.append(torch.stack([sum(losses), *losses, *agreement]) * len(masks) / count)
        return dict(zip(("loss", "loss_mask", "loss_dice", "accuracy", "aiou"), sum(rows), strict=True))

    @torch.no_grad()
    def predict(self, sample: Sample) -> Tensor:
        """Mask logits `(P, H, W)`: a pixel above 0 is in the mask."""
        return self(sample)[-1]


if __name__ == "__main__":
    torch.manual_seed(0)
    model = FrozenVLM(GroundedVLM.untrained(load_adapter("tiny-qwen2_5_vl"), base_width=8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(10):
        losses = model.compute_loss(open_dataset(f"scenes:count=6,first={6 * step}"))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        print(f"step {step + 1:2}", *(f"{name} {value.item():.3f}" for name, value in losses.items()))
    print("predict:", tuple(model.eval().predict(open_dataset("scenes:count=1,seed=4")[0]).shape))
