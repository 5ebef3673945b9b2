"""The pipeline of the example runs unchanged over every family, and masks stay on what they mark."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from vlm_adapters import list_adapters
from vlm_adapters.hf import ImageProcessorWrapper, wrap_image_processor
from vlm_adapters.testing.lookup import find_case

EXAMPLE = Path(__file__).parents[2] / "examples" / "separate_pipeline.py"
NAMES = ("llava", "deepseek_vl", "fuyu", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def example() -> Any:
    spec = importlib.util.spec_from_file_location("separate_pipeline", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def processor(name: str) -> Any:
    adapter: Any = find_case(name).load()
    return adapter.processor


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_follows_its_object(name: str, subtests: pytest.Subtests) -> None:
    wrapper, prepare = wrap_image_processor(processor(name)), example().prepare
    for size in [(60, 180), (180, 60), (96, 96), (131, 77)]:
        with subtests.test(size=size):
            pixels = np.zeros((*size, 3), np.uint8)
            top, left = size[0] // 3, size[1] // 2
            pixels[top : top + size[0] // 3, left : left + size[1] // 4] = 255
            sample = prepare(wrapper, Image.fromarray(pixels), torch.from_numpy(pixels[..., 0] > 0))
            assert sample.pixel_values.dtype == torch.float32
            assert sample.pixel_values.shape[1:] == sample.mask.shape
            bright = sample.pixel_values.mean(0)
            bright = bright > (bright.max() + bright.median()) / 2
            overlap = (bright & sample.mask).sum() / (bright | sample.mask).sum()
            assert overlap > 0.75  # an edge between two columns may fall to either: one of five on transformers 5.17


@pytest.mark.parametrize("name", NAMES)
def test_the_images_become_what_the_adapters_model_takes(name: str) -> None:
    from vlm_adapters import Prompt  # noqa: PLC0415

    adapter: Any = find_case(name).load()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8))
    wrapper: Any = wrap_image_processor(adapter.processor)
    made = wrapper.to_model_inputs(wrapper.preprocess(image)["pixel_values"])
    own = adapter.preprocess([Prompt.describe(image, "a circle")]).tensors
    for tensor, value in made.items():
        # Qwen's adapters resize with qwen_vl_utils, the wrapper with the processor.
        tolerance = 0.2 if name.startswith("qwen") and value.is_floating_point() else 0
        torch.testing.assert_close(own[tensor], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_the_cells_of_the_layout_are_those_of_the_adapter(name: str) -> None:
    adapter: Any = find_case(name).load()
    wrapper = wrap_image_processor(adapter.processor)
    assert isinstance(wrapper, ImageProcessorWrapper)
    for size in ((90, 140), (300, 100), (131, 77)):
        assert wrapper.layout(size) == adapter.layouts([size])[0][-1]


def test_every_adapter_that_declares_a_wrapper_has_one() -> None:
    declared = [entry.name for entry in list_adapters() if entry.spec and entry.spec.image_processors]
    assert set(NAMES) <= set(declared)
    for name in declared:
        assert isinstance(wrap_image_processor(processor(str(name))), ImageProcessorWrapper)


@pytest.mark.parametrize("other", [CLIPImageProcessor(), object(), None])
def test_everything_else_passes_through_unchanged(other: object) -> None:
    assert wrap_image_processor(other) is other


def test_the_example_runs() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=True, timeout=300)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= set(NAMES)
