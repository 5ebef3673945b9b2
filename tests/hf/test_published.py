"""Published checkpoints: a JSON file becomes a model without values and a tokenizer without a vocabulary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from vlm_adapters.hf.byte_tokenizer import token_ids
from vlm_adapters.hf.published import PublishedCheckpoint, published_in

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
FACTS = {
    "config": {"model_type": "llava", "text_config": {"vocab_size": 500, **SIZES}},
    "processor": {"patch_size": 14, "image_processor": {"size": {"shortest_edge": 336}}},
    "tokens": {"</s>": 2, "<image>": 300},
}


def published(folder: Path) -> PublishedCheckpoint:
    (folder / "acme--toy-1b.json").write_text(json.dumps(FACTS), encoding="utf-8")
    found = PublishedCheckpoint.read(folder, "acme/toy-1b")
    assert found
    return found


def test_what_the_file_leaves_out_is_the_default_of_the_class(tmp_path: Path) -> None:
    found = published(tmp_path)
    assert (found.name, found.processor, found.tokens) == ("acme/toy-1b", FACTS["processor"], FACTS["tokens"])
    assert found.config.text_config.num_hidden_layers == 2
    assert (found.config.vision_config.image_size, found.config.vision_config.hidden_size) == (336, 1024)


def test_a_checkpoint_without_a_file_is_none(tmp_path: Path) -> None:
    assert PublishedCheckpoint.read(tmp_path, "acme/toy-1b") is None


def test_the_model_has_sizes_and_no_values(tmp_path: Path) -> None:
    model = published(tmp_path).model()
    assert isinstance(model, LlavaForConditionalGeneration)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight.shape == (500, 64)


def test_the_stand_in_has_the_true_ids(tmp_path: Path) -> None:
    tokenizer = published(tmp_path).tokenizer(end="</s>", padding="</s>", padding_side="right")
    assert token_ids(tokenizer) == FACTS["tokens"]
    assert tokenizer.padding_side == "right"


def test_a_decorated_function_builds_what_the_folder_has_and_nothing_else(tmp_path: Path) -> None:
    @published_in(tmp_path)
    def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> list[object]:
        """Build it."""
        return [facts.name, tokenizer]

    found = published(tmp_path)
    tokenizer = found.tokenizer(end="</s>", padding="</s>")
    assert build("acme/toy-1b") == ["acme/toy-1b", None]
    assert build("acme/toy-1b", tokenizer) == ["acme/toy-1b", tokenizer]
    assert build("acme/toy-9b") is None
    assert build.__doc__ == "Build it."
