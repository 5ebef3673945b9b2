"""How likely a model finds the words of a phrase, and how much likelier another token, from states before its head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

_TOKENS_AT_ONCE = 64
"""Number of tokens whose logits over the vocabulary are computed at once: 40 MiB for 150,000 tokens in float32."""


def token_log_probabilities(model: PreTrainedModel, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor] | None:
    """The log probability of every token, by the model's own head over the vocabulary, and the gap to the likeliest.

    Args:
        model: The model.
        states: `(T, D)`: of the position before each token, after the final norm.
        tokens: `(T,)`: ids of the tokens.

    Returns:
        Log probabilities `(T,)` float32, and what that of the likeliest token has more; None where the model has no
        such head.
    """
    head = model.get_output_embeddings()
    if head is None:
        return None
    softcap = getattr(model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
    nothing = states.new_zeros(0, dtype=torch.float32)
    found, gaps = [nothing], [nothing]
    for some, of_some in zip(states.split(_TOKENS_AT_ONCE), tokens.split(_TOKENS_AT_ONCE), strict=True):
        logits = head(some).float()
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        ids = of_some.to(logits.device)
        found.append(-functional.cross_entropy(logits, ids, reduction="none").to(states.device))
        gaps.append((logits.amax(-1) - logits.gather(-1, ids[:, None])[:, 0]).to(states.device))
    return torch.cat(found), torch.cat(gaps)
