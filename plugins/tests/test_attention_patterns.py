"""Who sees whom, as a family and a config say it: images both ways, sliding windows, linear attention."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import wraps
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor
from transformers import BatchFeature, Gemma3Config
from typing_extensions import override

from vlm_adapters import GridRequest, ImageLayout, Message, Prompt, TransformersBackbone
from vlm_adapters.hf import RenderedPrompt
from vlm_adapters.hf.language_model import language_model_of
from vlm_adapters.testing import AdapterCase
from vlm_adapters.testing.checks_transformers import check_attention_pattern
from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_fuyu.tiny import fuyu
from vlm_adapters_lfm.tiny import lfm2_vl
from vlm_adapters_llava.tiny_native_rows import mistral3
from vlm_adapters_llava.tiny_onevision import llava_onevision
from vlm_adapters_qwen.adapter import QwenAdapter
from vlm_adapters_qwen.tiny import qwen2_5_vl, qwen3_5, qwen3_vl
from vlm_adapters_smolvlm.tiny import idefics3

SIDE, PATCH, CELLS, WINDOW = 64, 8, 4, 9
TEXTS = ("a red star", "a blue circle and a red star", "a red star", "green, a red star, pink")
EVERYTHING = GridRequest(hidden_layers=None, phrase_hidden_layers=None)


class Gemma3Adapter(TransformersBackbone):
    """A stranger's adapter for Gemma 3: one square of 4 x 4 cells, whose tokens see each other both ways."""

    attention_pattern = "bidirectional images"

    @override
    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        return [[ImageLayout(size, (SIDE, SIDE), (SIDE, SIDE), (CELLS, CELLS))] for size in sizes]

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **_: Any) -> BatchFeature:
        every = [image for of_prompt in images for image in of_prompt]
        ids = torch.full((len(every), CELLS**2), next(iter(self.image_token_ids)))
        pixels = torch.stack([pil_to_tensor(image.resize((SIDE, SIDE))) / 255 for image in every])
        ones = torch.ones_like(ids)
        return BatchFeature({"input_ids": ids, "attention_mask": ones, "token_type_ids": ones, "pixel_values": pixels})

    @override
    def render(self, prompt: Prompt) -> RenderedPrompt:
        text, spans = "<s>", []
        for message in prompt.messages:
            text += f"{message.role}:"
            for part in message.content:
                start = len(text)
                text += part if isinstance(part, str) else "<image>"
                spans += [(start, len(text))] if isinstance(part, str) else []
        slots = tuple(match.span() for match in re.finditer("<image>", text))
        return RenderedPrompt(text, tuple(spans), slots, has_start=True)


def gemma3(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Gemma3Adapter:
    tokenizer = byte_tokenizer(("<s>", "</s>", "<image>", "<pad>"), end="</s>", padding="<pad>")
    config = Gemma3Config(
        text_config={
            **TINY_TEXT,
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        mm_tokens_per_image=CELLS**2,
        image_token_index=token_ids(tokenizer)["<image>"],
    )
    processor: Any = SimpleNamespace(tokenizer=tokenizer, image_token="<image>")  # noqa: S106 - not a password
    return Gemma3Adapter(random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny Gemma 3")


def qwen_with_windows(attention: str = "sdpa", *, kinds: Sequence[str] = ("full", "sliding", "sliding")) -> QwenAdapter:
    plain = qwen2_5_vl()
    config = deepcopy(plain.model.config)
    config.text_config.layer_types = [f"{kind}_attention" for kind in kinds]
    config.text_config.sliding_window = WINDOW
    return QwenAdapter(random_model(config, attention=attention), plain.processor)


def image(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (150, 200, 3), dtype=np.uint8))


def prompts(texts: Sequence[str] = TEXTS) -> list[Prompt]:
    return [Prompt.describe(image(), text, ["a red star"]) for text in texts]


def questions(*asked: str) -> list[Prompt]:
    """Prompts with words before one image."""
    answer = Message("assistant", ("a red star",))
    return [Prompt.chat([Message("user", (question, image())), answer], ["a red star"]) for question in asked]


def extract(adapter: TransformersBackbone, of: Sequence[Prompt]) -> tuple[Any, list[Any], int]:
    """What is extracted, the masks of every pass, and how many lines of pixels came to the image features."""
    masks: list[Any] = []
    rows: list[int] = []
    body: Any = type(adapter.model.base_model)
    stock = body.get_image_features

    @wraps(stock)
    def features(self: Any, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(pixel_values))
        return stock(self, pixel_values, *args, **kwargs)

    hook = adapter.model.base_model.register_forward_pre_hook(
        lambda _, __, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    inputs = adapter.preprocess(of)
    body.get_image_features = features
    try:
        return adapter.extract(inputs, EVERYTHING), masks, sum(rows)
    finally:
        hook.remove()
        body.get_image_features = stock


def difference(found: Any, expected: Any) -> float:
    """Largest difference of attention and hidden states of one prompt."""
    pairs = []
    for one, other in zip(found, expected, strict=True):
        pairs += [(one.attention, other.attention), (one.hidden, other.hidden)]
        pairs += zip(one.phrase_hidden, other.phrase_hidden, strict=True)
    return max(float((one - other).abs().max() / other.abs().max().clamp(min=1)) for one, other in pairs)


def largest_difference(adapter: TransformersBackbone, of: Sequence[Prompt], found: Any) -> float:
    """Largest difference to each prompt alone."""
    return max(
        difference(of_prompt, adapter.extract(adapter.preprocess([one]), EVERYTHING)[0])
        for of_prompt, one in zip(found, of, strict=True)
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_images_both_ways_and_windows_stay_as_they_are(attention: str) -> None:
    adapter = gemma3(attention=attention)
    found, masks, _ = extract(adapter, prompts())
    assert largest_difference(adapter, prompts(), found) < 1e-5
    _, of_texts = masks
    assert set(of_texts) == {"full_attention", "sliding_attention"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kinds", [("full", "sliding", "sliding"), ("sliding", "sliding", "sliding")])
def test_windows_of_some_layers_or_all_stay_as_they_are(attention: str, kinds: Sequence[str]) -> None:
    adapter = qwen_with_windows(attention, kinds=kinds)
    found, masks, _ = extract(adapter, prompts())
    assert largest_difference(adapter, prompts(), found) < 1e-5
    assert len(masks) == 1


@pytest.mark.parametrize("load", [qwen2_5_vl, qwen_with_windows, idefics3])
def test_a_long_beginning_runs_by_itself(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_adapters.hf.shared_prefix._MOST_IN_ONE_PASS", 10)
    adapter = load()
    found, masks, _ = extract(adapter, prompts())
    assert largest_difference(adapter, prompts(), found) < 1e-5
    assert len(masks) == 2


@pytest.mark.parametrize(
    ("load", "declared"), [(gemma3, "bidirectional images"), (qwen3_5, "causal"), (fuyu, "causal")]
)
def test_the_suite_accepts_the_right_declaration_alone(
    load: Any, declared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = AdapterCase("declared", load=load, expected_grids=lambda _: [])
    check_attention_pattern(case)
    for pattern in {"causal", "bidirectional images", "bidirectional prefix"} - {declared}:
        monkeypatch.setattr(type(load()), "attention_pattern", pattern)
        with pytest.raises(AssertionError, match=f'attention_pattern="{pattern}"'):
            check_attention_pattern(case)


@pytest.mark.parametrize(("load", "shared"), [(gemma3, "beginning"), (qwen3_5, "image features"), (fuyu, "beginning")])
def test_info_says_what_is_shared(load: Any, shared: str) -> None:
    assert load().info.shared == shared


def test_a_family_that_declares_nothing_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gemma3Adapter, "attention_pattern", "undeclared")
    adapter = gemma3()
    found, masks, rows = extract(adapter, prompts())
    assert largest_difference(adapter, prompts(), found) < 1e-5
    assert [len(mask) for mask in masks] == [len(TEXTS)]
    assert rows == 1
    assert adapter.info.shared == "image features"


@pytest.mark.parametrize("load", [qwen3_5, lfm2_vl])
def test_layers_that_mix_neighbours_run_the_tower_once_and_the_prompts_as_a_batch(load: Any) -> None:
    adapter = load()
    found, masks, rows = extract(adapter, prompts())
    assert largest_difference(adapter, prompts(), found) < 3e-4  # as a padded batch of its layers, of states up to 35
    assert [len(mask) for mask in masks] == [len(TEXTS)]
    assert rows == extract(adapter, prompts(TEXTS[:1]))[2]


def test_fuyu_packs_the_texts_of_one_image() -> None:
    adapter = fuyu()
    found, masks, rows = extract(adapter, prompts())
    assert largest_difference(adapter, prompts(), found) < 1e-5
    assert [len(mask) for mask in masks] == [1]
    assert rows == extract(adapter, prompts(TEXTS[:1]))[2]


@pytest.mark.parametrize("load", [qwen2_5_vl, qwen3_vl, gemma3, idefics3, mistral3, llava_onevision])
def test_one_image_after_different_words_passes_the_tower_once(load: Any) -> None:
    adapter = load()
    asked = [*questions("Where?", "What is it?"), *prompts(TEXTS[:2])]
    found, masks, rows = extract(adapter, asked)
    assert largest_difference(adapter, asked, found) < 1e-5
    assert len(masks) == (3 if load is gemma3 else 2)  # a beginning and its texts, and the others
    assert rows == extract(adapter, asked[:1])[2]


@pytest.mark.parametrize("load", [qwen2_5_vl, qwen3_vl, gemma3])
def test_long_texts_in_several_passes_run_the_tower_once(load: Any) -> None:
    adapter = load()
    asked = prompts([f"{word} and then a red star" for word in ("one", "two", "three", "four", "five", "six")])
    found, masks, rows = extract(adapter, asked)
    assert largest_difference(adapter, asked, found) < 1e-5
    assert len(masks) > 1
    assert rows == extract(adapter, asked[:1])[2]


def test_different_images_pass_the_tower_as_before() -> None:
    adapter = qwen3_5()
    asked = [Prompt.describe(image(seed), "a red star", ["a red star"]) for seed in range(3)]
    found, _, rows = extract(adapter, asked)
    assert largest_difference(adapter, asked, found) < 1e-5
    assert rows == 3 * extract(adapter, asked[:1])[2]


def test_threads_share_a_model_and_leave_it_as_it_was() -> None:
    adapter = qwen3_5()
    of_threads = [[Prompt.describe(image(seed), text, ["a red star"]) for text in TEXTS] for seed in range(3)]
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        for _ in range(3):
            found[number] = adapter.extract(adapter.preprocess(of_threads[number]), EVERYTHING)

    threads = [Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(largest_difference(adapter, asked, found[number]) < 3e-4 for number, asked in enumerate(of_threads))
    assert "get_image_features" not in vars(adapter.model.base_model)


@pytest.mark.parametrize("load", [qwen2_5_vl, gemma3])
def test_sixteen_phrases_run_the_tokens_of_one_beginning_and_their_texts(load: Any) -> None:
    adapter = load()
    asked = [Prompt.describe(image(), text, [(0, len(text))]) for text in (f"{k:x}" for k in range(16))]
    lengths: list[int] = []
    hook = (
        language_model_of(adapter.model)
        .layers[0]
        .register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[:2].numel()))
    )
    inputs = adapter.preprocess(asked)
    adapter.extract(inputs)
    hook.remove()
    kept = inputs.tensors["attention_mask"].bool()
    ids = [row[keep].tolist() for row, keep in zip(inputs.tensors["input_ids"], kept, strict=True)]
    common = next(k for k, of_place in enumerate(zip(*ids, strict=False)) if len(set(of_place)) > 1)
    texts = sum(len(of_prompt) - common for of_prompt in ids)
    assert lengths == ([common, texts] if load is gemma3 else [common + texts])
