"""The words of a phrase as prompts of the mask decoder, one token per token of the language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm_adapters.errors import DecoderError


class TextPrompt(nn.Module):
    """Hidden states of a phrase's tokens, mixed over the layers and projected.

    The layers are weighted by the softmax of a learned vector that begins with ones, so with their mean. Source: F-LMM
    (arXiv 2406.05821), whose published weights are `text_layer_weights` and `text_proj`.

    Args:
        hidden_size: Width `D` of the language model.
        layers: Hidden states per token: all layers of the language model, the last one after its final norm.
        width: Width of a prompt token.
    """

    def __init__(self, hidden_size: int, layers: int, width: int = 256) -> None:
        super().__init__()
        if min(hidden_size, layers, width) < 1:
            raise DecoderError(
                f"A TextPrompt cannot have hidden_size={hidden_size}, layers={layers}, width={width}. Give at least 1."
            )
        self.layer_weights = nn.Parameter(torch.ones(layers))
        self.projection = nn.Linear(hidden_size, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Give every token of one phrase its prompt.

        Args:
            hidden: `(L, T, D)` of any float type: an entry of `Grids.phrase_hidden`, with all layers.

        Returns:
            `(T, width)` in the type of the weights.

        Raises:
            DecoderError: There is another number of layers, or another width.
        """
        expected = (len(self.layer_weights), self.projection.in_features)
        if hidden.ndim != 3 or (hidden.shape[0], hidden.shape[2]) != expected:
            raise DecoderError(
                f"The hidden states of a phrase have shape {tuple(hidden.shape)}, and this text prompt reads "
                f"{expected[0]} layers of width {expected[1]}: (layers, tokens, width). Request "
                "phrase_hidden_layers=None, or build one for this backbone."
            )
        weights = self.layer_weights.float().softmax(dim=0)
        mixed = torch.einsum("l,ltd->td", weights, hidden.to(weights.device).float())
        projected: Tensor = self.projection(mixed.to(self.projection.weight.dtype))
        return projected
