"""A tiny random SmolVLM of the real classes, and where its cells must be."""

import torch
from transformers import Idefics3Config, Idefics3ImageProcessor, Idefics3Processor, PreTrainedTokenizerFast
from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids

from vlm_adapters_idefics3.adapter import Idefics3Adapter

LONGEST, TILE, PATCH, CELLS = 192, 64, 8, 4
SPECIAL_TOKENS = (
    *("<|im_start|>", "<end_of_utterance>", "<pad>", "<fake_token_around_image>", "<image>", "<global-img>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def tiny_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    """Build the processor: 3 tiles along the image's long side, 4 x 4 cells each."""
    images = Idefics3ImageProcessor(size={"longest_edge": LONGEST}, max_image_size={"longest_edge": TILE})
    return Idefics3Processor(images, tokenizer, image_seq_len=CELLS**2, chat_template=TEMPLATE)


def load(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Idefics3Adapter:
    """Build the adapter over random weights."""
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<end_of_utterance>", padding="<pad>")
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Idefics3Config(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config={"image_size": TILE, "patch_size": PATCH, "initializer_range": 0.2, **tower},
        image_token_id=token_ids(tokenizer)["<image>"],
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return Idefics3Adapter(model, tiny_processor(tokenizer), checkpoint="tiny random SmolVLM")


def grids(size: tuple[int, int]) -> list[ExpectedGrid]:
    """The rule: the long side becomes `LONGEST`, the short one in proportion, up to even, then up to whole tiles."""
    proportional = LONGEST * min(size) // max(size)
    tiles = LONGEST // TILE, max(1, -(-(proportional + proportional % 2) // TILE))
    rows, columns = tiles if size[0] > size[1] else tiles[::-1]
    box = (0, 0, size[1], size[0])
    return [ExpectedGrid((CELLS, CELLS), box, "overview"), ExpectedGrid((CELLS * rows, CELLS * columns), box)]


CASE = AdapterCase("idefics3", load=load, expected_grids=grids)
