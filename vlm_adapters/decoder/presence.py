"""Whether a phrase is in the image at all: a small head beside the mask decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.decoder.calibration import Calibration
from vlm_adapters.decoder.features import PhraseFeatures
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.decoder.unet import normalise
from vlm_adapters.errors import DecoderError

_PHRASES_AT_ONCE = 16
"""Number of phrases whose maps are looked at together: they are copied for it."""

_OF_MASK, _OF_LIKELIHOOD = 6, 5
_LEAST_LOG_PROBABILITY = -20.0


class PresenceHead(nn.Module):
    """Says whether a phrase is in the image, from all that the decoder reads of it.

    It reads, of every map, how sharp it is and how much of it lies on the coarse mask; the coarse mask; the hidden
    states of the phrase's tokens, each normalised, then mixed over the layers as in `TextPrompt`; and how likely the
    backbone finds the tokens. None of these carries gradient: learning presence changes no mask.

    Args:
        channels: Attention maps per phrase.
        hidden_size: Width of the language model.
        layers: Hidden states per token.
        width: Width of the hidden layers of the head.
        calibration: How its logits become probabilities; as they are until it is calibrated.
    """

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        layers: int,
        width: int = 32,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.calibration = calibration or Calibration()
        self.text = TextPrompt(hidden_size, layers, width)
        self.token = nn.Linear(width + 1, width)
        self.evidence = nn.Linear(3 * channels + _OF_MASK + _OF_LIKELIHOOD + 2 * width, width)
        self.logit = nn.Linear(width, 1)

    @classmethod
    def of(cls, info: BackboneInfo, channels: int, width: int = 32, calibration: Calibration | None = None) -> Self:
        """Build a head of a backbone's size, with random weights."""
        return cls(channels, info.hidden_size, info.num_layers, width, calibration)

    def forward(self, features: PhraseFeatures, coarse: Tensor) -> Tensor:
        """Compute the logits of presence.

        Args:
            features: What was read of an image; its hidden states are needed.
            coarse: `(P, h', w')` logits of the U-Net over the region of the maps.

        Returns:
            `(P,)` float32, before calibration.

        Raises:
            DecoderError: The hidden states are missing, or of another backbone.
        """
        maps, coarse = features.maps.detach(), coarse.detach().float()
        if len(features.hidden) != len(maps):
            raise DecoderError(
                f"Presence needs the hidden states of {len(maps)} phrases, and has those of {len(features.hidden)}. "
                "Request them: FeatureRequest(hidden=True, log_probabilities=True)."
            )
        if not len(maps):
            return maps.new_zeros(0, dtype=torch.float32)
        missing = [states.new_zeros(states.shape[1]) for states in features.hidden]
        likelihood = [
            of_phrase.detach().float().clamp(min=_LEAST_LOG_PROBABILITY)
            for of_phrase in features.log_probabilities or missing
        ]
        evidence = [
            _of_maps(maps, coarse),
            torch.stack([_of_mask(logits) for logits in coarse]),
            torch.stack([_of_likelihood(of_phrase) for of_phrase in likelihood]),
            self._of_tokens([states.detach() for states in features.hidden], likelihood),
        ]
        logits: Tensor = self.logit(functional.gelu(self.evidence(torch.cat(evidence, dim=1))))
        return logits[:, 0]

    def _of_tokens(self, hidden: Sequence[Tensor], likelihood: Sequence[Tensor]) -> Tensor:
        """`(P, 2 * width)`: the mean and the maximum over the tokens of every phrase."""
        states = torch.cat(list(hidden), dim=1).float()
        words = self.text(functional.layer_norm(states, states.shape[-1:]))
        tokens = functional.gelu(self.token(torch.cat([words, torch.cat(list(likelihood))[:, None] / 4], dim=1)))
        of_phrases = tokens.split([states.shape[1] for states in hidden])
        return torch.stack([torch.cat([some.mean(dim=0), some.amax(dim=0)]) for some in of_phrases])


def least_probabilities(log_probabilities: Sequence[Tensor]) -> Tensor:
    """The least probability of a token of each phrase after its first: how far the model would say the phrase itself.

    It needs no training, and tells what is absent from what is there where the wording is alike; it is not calibrated.

    Args:
        log_probabilities: `(T,)` of every phrase, at least one.

    Returns:
        `(P,)` float32 in [0, 1].
    """
    return torch.stack([_after_first(of_phrase).min().exp() for of_phrase in log_probabilities])


def _of_maps(maps: Tensor, coarse: Tensor) -> Tensor:
    """`(P, 3 * C)`: height of the peak, evenness, and share on the coarse mask, of every map."""
    found = []
    for some, logits in zip(maps.split(_PHRASES_AT_ONCE), coarse.split(_PHRASES_AT_ONCE), strict=True):
        shares = normalise(some)
        cells = shares.shape[2] * shares.shape[3]
        mask = functional.adaptive_avg_pool2d(logits.sigmoid()[:, None], (shares.shape[2], shares.shape[3]))
        peak = (shares.amax(dim=(2, 3)) * cells).log1p()
        evenness = -(shares * shares.clamp(min=1e-12).log()).sum(dim=(2, 3)) / max(1.0, math.log(cells))
        found.append(torch.cat([peak, evenness, (shares * mask).sum(dim=(2, 3))], dim=1))
    return torch.cat(found)


def _of_mask(logits: Tensor) -> Tensor:
    """`(6,)` of coarse logits `(h', w')`: their maximum, the mean and least of the highest, area, and sharpness."""
    probabilities, best = logits.sigmoid(), logits.flatten().topk(min(64, logits.numel())).values
    area = probabilities.sum().clamp(min=1e-6)
    return torch.stack(
        [
            logits.max() / 5,
            best.mean() / 5,
            best[-1] / 5,
            (area / logits.numel()).log() / 5,
            (probabilities * probabilities).sum() / area,
            (probabilities * (1 - probabilities)).sum() / area,
        ]
    )


def _of_likelihood(log_probabilities: Tensor) -> Tensor:
    """`(5,)` of log probabilities `(T,)`: of the first token, which has the least to go by, and of those after it."""
    rest = _after_first(log_probabilities)
    least, mean = rest.min(), rest.mean()
    return torch.stack([log_probabilities[0] / 4, least / 4, mean / 4, least.exp(), mean.exp()])


def _after_first(log_probabilities: Tensor) -> Tensor:
    return log_probabilities[1:] if len(log_probabilities) > 1 else log_probabilities
