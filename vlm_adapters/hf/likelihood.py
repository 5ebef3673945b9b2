"""How likely a model finds the words of a phrase: the log probabilities of its tokens, from states before its head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

_TOKENS_AT_ONCE = 64
"""Number of tokens whose logits over the vocabulary are computed at once: 40 MiB for 150,000 tokens in float32."""


def token_log_probabilities(model: PreTrainedModel, states: Tensor, tokens: Tensor) -> Tensor | None:
    """The log probability of every token, by the model's own head over the vocabulary.

    Args:
        model: The model.
        states: `(T, D)`: of the position before each token, after the final norm.
        tokens: `(T,)`: ids of the tokens.

    Returns:
        `(T,)` float32; None where the model has no such head.
    """
    head = model.get_output_embeddings()
    if head is None:
        return None
    softcap = getattr(model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
    found = [states.new_zeros(0, dtype=torch.float32)]
    for some, ids in zip(states.split(_TOKENS_AT_ONCE), tokens.split(_TOKENS_AT_ONCE), strict=True):
        logits = head(some).float()
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        found.append(-functional.cross_entropy(logits, ids.to(logits.device), reduction="none").to(states.device))
    return torch.cat(found)
