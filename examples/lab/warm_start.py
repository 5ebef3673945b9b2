"""Begin from an embedded checkpoint with fewer layers, smaller patches and other words: what it does is kept."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from transformers import PreTrainedModel, PreTrainedTokenizerFast

OUTPUTS = ("o_proj", "out_proj", "attn.proj", "down_proj", "fc2")
"""What a layer adds to the hidden states: zero in a new layer, which then changes nothing."""


def warm_start(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Give a model the weights of a smaller one of its family."""
    old = type(model).from_pretrained(folder).state_dict()
    words = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    with torch.no_grad():
        for name, new in model.state_dict().items():
            weight = old.get(name)
            if "embed_tokens" in name or name == "lm_head.weight":
                copy_words(new, weight.float(), words, tokenizer)
            elif weight is None:
                if any(f".{part}." in name for part in OUTPUTS):
                    new.zero_()
            elif weight.shape == new.shape:
                new.copy_(weight.float())
            else:
                _patches(new, weight.float())


@torch.no_grad()
def copy_words(new: Tensor, old: Tensor, words: dict[str, int], tokenizer: PreTrainedTokenizerFast) -> None:
    """Give every word that an older tokenizer has its old row of a table."""
    for word, index in tokenizer.get_vocab().items():
        if word in words:
            new[index] = old[words[word]]


def _patches(new: Tensor, old: Tensor) -> None:
    """A patch kernel for larger patches of a finer image."""
    ratio = old.shape[-1] / new.shape[-1]
    new.copy_(F.interpolate(old, size=new.shape[-2:], mode="bilinear") * ratio**2)
