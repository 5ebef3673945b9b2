"""Models of 4 and 8 bits: their rows are those of their own eager kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BitsAndBytesConfig

from vlm_adapters import GridRequest, TransformersBackbone, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.testing import TransformersReference
from vlm_adapters.training.cache.fingerprint import CacheFingerprint

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install bitsandbytes")

NAMES = sorted(embedded_checkpoints())
SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]
KINDS = {
    "nf4": bitsandbytes.nn.Linear4bit,
    "int8": bitsandbytes.nn.Linear8bitLt,
}


def loaded(name: str | Path, **options: Any) -> TransformersBackbone:
    adapter = load_adapter(name, device="cpu", **options)
    assert isinstance(adapter, TransformersBackbone)
    return adapter


def rows(adapter: TransformersBackbone) -> Tensor:
    """`(R, L, n, cells)` of all tokens of all phrases."""
    (grids,) = adapter.extract(adapter.preprocess([SCENE.prompt]), GridRequest(reduce="none"))[0]
    return grids.attention.flatten(-2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_eager_kernel_of_the_quantised_model(name: str, kind: str) -> None:
    adapter = loaded(name, quantization_config=kind, attn_implementation="eager")
    assert any(isinstance(module, KINDS[kind]) for module in adapter.model.modules())
    inputs = adapter.preprocess([SCENE.prompt])
    (grid,) = adapter.locate_image_tokens(inputs)[0]
    with torch.no_grad():
        reference = TransformersReference().run(adapter, inputs)
    expected = reference.rows(0, torch.cat(inputs.phrase_tokens[0]), grid.tokens.flatten())
    assert float((rows(adapter) - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_beside_the_fused_kernel_are_those_of_the_same_pass(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two passes with two kernels would differ: bitsandbytes rounds what goes into every layer to 8 or 16 bits.
    adapter = loaded(name, quantization_config=kind, attn_implementation="sdpa")
    inputs = adapter.preprocess([SCENE.prompt])
    (grid,) = adapter.locate_image_tokens(inputs)[0]
    length, weights = inputs.tensors["input_ids"].shape[1], []
    fused = functional.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        if query.shape[-2] == length:  # the language model's
            keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            causal = torch.full((length, length), -torch.inf).triu(1)
            scores = query.float() @ keys.float().mT * (options.get("scale") or query.shape[-1] ** -0.5) + causal
            weights.append(scores.softmax(-1)[0])
        return fused(query, key, value, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    found = rows(adapter)
    assert len(weights) == adapter.info.num_layers
    positions = torch.cat(inputs.phrase_tokens[0])
    expected = torch.stack([each[:, positions][..., grid.tokens.flatten()] for each in weights]).permute(2, 0, 1, 3)
    assert float((found - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_stay_numbers_and_tensors_stay_where_the_model_computes(kind: str) -> None:
    adapter = loaded("tiny-qwen2_5_vl", quantization_config=kind, dtype="bf16")
    pixels = adapter.preprocess([SCENE.prompt]).tensors["pixel_values"]
    assert pixels.dtype is torch.bfloat16
    assert adapter.device == torch.device("cpu")


def test_a_config_of_transformers_is_taken_as_it_is() -> None:
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    found = rows(loaded("tiny-llava", quantization_config=config))
    assert torch.equal(found, rows(loaded("tiny-llava", quantization_config="nf4")))


def test_a_checkpoint_that_was_saved_quantised_is_loaded_as_such(tmp_path: Path) -> None:
    first = loaded("tiny-llava", quantization_config="nf4")
    first.model.save_pretrained(tmp_path)
    first.processor.save_pretrained(tmp_path)
    again = loaded(tmp_path)
    assert any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in again.model.modules())
    assert torch.equal(rows(again), rows(first))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_distinguishes_quantised_weights_from_plain_ones(kind: str) -> None:
    plans = [
        CacheFingerprint.of(loaded("tiny-llava", **options), "scenes:count=1,seed=1", FeatureRequest())
        for options in ({}, {"quantization_config": kind})
    ]
    assert plans[0].digest != plans[1].digest
