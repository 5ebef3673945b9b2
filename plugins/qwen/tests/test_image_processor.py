"""The wrapper against the stock image processors, and against a resize and normalisation written apart from both."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv
from transformers import (
    CLIPImageProcessor,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

import vlm_adapters_qwen
from vlm_adapters.errors import AdapterError, CheckpointError, ImageError
from vlm_adapters_qwen.image_processor import QwenImageProcessorWrapper, wrap_image_processor
from vlm_adapters_qwen.tiny import CHAT_TEMPLATE, byte_level_tokenizer

FAMILIES = {
    "qwen2_vl": (Qwen2VLProcessor, Qwen2VLVideoProcessor, {}),
    "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, {}),
    # What the published preprocessor_config.json of Qwen3-VL says.
    "qwen3_vl": (
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
        {
            "patch_size": 16,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"shortest_edge": 65536, "longest_edge": 16777216},
        },
    ),
}
SIZES = [(100, 300), (61, 47), (5, 9), (300, 100), (224, 224), (3, 2), (61, 47), (20, 1500)]
"""Heights and widths: 3:1, odd, smaller than a cell, 1:3, exact, tiny, one again, and very long."""


def combined(family: str) -> Any:
    processor, video, settings = FAMILIES[family]
    return processor(
        image_processor=Qwen2VLImageProcessor(**settings),
        tokenizer=byte_level_tokenizer(),
        video_processor=video(),
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(params=list(FAMILIES))
def processor(request: pytest.FixtureRequest) -> Any:
    return combined(request.param)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def images() -> list[Image.Image]:
    return [noise(*size, seed=seed) for seed, size in enumerate(SIZES)]


def own_output(processor: Any, images: list[Image.Image]) -> Any:
    return processor.image_processor(images=images, return_tensors="pt")


def assert_bit_equal(made: Any, expected: Any) -> None:
    assert set(made) == {"pixel_values", "image_grid_thw"}
    for name, value in made.items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name


def test_a_batch_of_different_sizes_comes_back_bit_equal(processor: Any) -> None:
    wrapper = QwenImageProcessorWrapper(processor)
    processed = wrapper.preprocess(images())
    expected = own_output(processor, images())
    assert_bit_equal(wrapper.to_model_inputs(processed["pixel_values"]), expected)
    assert_bit_equal(wrapper.to_model_inputs(processed), expected)


def test_images_preprocessed_one_by_one_make_the_same_batch(processor: Any) -> None:
    wrapper = QwenImageProcessorWrapper(processor)
    values = [wrapper.preprocess(image)["pixel_values"][0] for image in images()]
    assert_bit_equal(wrapper.to_model_inputs(values), own_output(processor, images()))


def test_the_combined_processor_gives_the_same_patches(processor: Any) -> None:
    wrapper = QwenImageProcessorWrapper(processor)
    made = wrapper.to_model_inputs(wrapper.preprocess(images()))
    whole = processor(text=[processor.image_token] * len(SIZES), images=images(), padding=True, return_tensors="pt")
    assert_bit_equal(made, {name: whole[name] for name in made})


@pytest.mark.parametrize(
    "settings", [{"temporal_patch_size": 3}, {"merge_size": 1}, {"patch_size": 7, "merge_size": 3}]
)
def test_other_patch_sizes_come_back_bit_equal(settings: dict[str, int]) -> None:
    image_processor = Qwen2VLImageProcessor(**settings)
    wrapper = QwenImageProcessorWrapper(image_processor)
    made = wrapper.to_model_inputs(wrapper.preprocess(images()))
    assert_bit_equal(made, image_processor(images=images(), return_tensors="pt"))


def test_the_pillow_backend_comes_back_bit_equal() -> None:
    image_processor = Qwen2VLImageProcessorPil()
    wrapper = QwenImageProcessorWrapper(image_processor)
    made = wrapper.to_model_inputs(wrapper.preprocess(images()))
    assert_bit_equal(made, image_processor(images=images(), return_tensors="pt"))


def test_pixel_values_are_the_resized_normalised_image(subtests: pytest.Subtests, processor: Any) -> None:
    for size in SIZES:
        with subtests.test(size=size):
            image = noise(*size)
            settings = processor.image_processor
            (value,) = QwenImageProcessorWrapper(processor).preprocess(image)["pixel_values"]
            pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
            resized = tv.resize(
                pixels, list(value.shape[1:]), interpolation=tv.InterpolationMode.BICUBIC, antialias=True
            )
            mean, deviation = torch.tensor(settings.image_mean), torch.tensor(settings.image_std)
            expected = (resized / 255 - mean[:, None, None]) / deviation[:, None, None]
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)


def test_a_coloured_corner_stays_in_its_corner(subtests: pytest.Subtests, processor: Any) -> None:
    for corner in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        with subtests.test(corner=corner):
            pixels = np.zeros((90, 210, 3), dtype=np.uint8)
            row, column = corner
            pixels[row * 70 : row * 70 + 20, column * 180 : column * 180 + 30] = (255, 128, 0)
            (value,) = QwenImageProcessorWrapper(processor).preprocess(Image.fromarray(pixels))["pixel_values"]
            _, height, width = value.shape
            for channel, brightness in enumerate((255, 128)):  # red, then green: the channels are in their order too
                mean, deviation = (
                    processor.image_processor.image_mean[channel],
                    processor.image_processor.image_std[channel],
                )
                inside = value[channel] > (brightness / 255 / 2 - mean) / deviation
                rows, columns = inside.nonzero(as_tuple=True)
                assert rows.float().mean() == pytest.approx((80 if row else 10) / 90 * height, abs=1)
                assert columns.float().mean() == pytest.approx((195 if column else 15) / 210 * width, abs=1)
                assert value[channel].max() == pytest.approx((brightness / 255 - mean) / deviation, abs=0.15)
            assert value[2].unique().numel() == 1


def test_the_reported_resize_is_exact(processor: Any) -> None:
    processed = QwenImageProcessorWrapper(processor).preprocess(images())
    cell = processor.image_processor.patch_size * processor.image_processor.merge_size
    for original, value, meta, size in zip(SIZES, *(processed[name] for name in processed), strict=True):
        assert size == meta["image_shape"] == meta["padded_shape"] == tuple(value.shape[1:])
        assert meta["padding"] == {"before_height": 0, "after_height": 0, "before_width": 0, "after_width": 0}
        assert meta["original_shape"] == original
        assert meta["scale_factor"] == (size[0] / original[0], size[1] / original[1])
        assert not size[0] % cell
        assert not size[1] % cell
    assert list(processed) == ["pixel_values", "meta_datas", "image_sizes"]
    json.dumps(processed["meta_datas"])


@pytest.mark.parametrize(("family", "grid"), [("qwen2_vl", (17, 23)), ("qwen2_5_vl", (17, 23)), ("qwen3_vl", (15, 20))])
def test_an_image_of_480x640_has_the_published_grid(family: str, grid: tuple[int, int]) -> None:
    wrapper = QwenImageProcessorWrapper(combined(family))
    processed = wrapper.preprocess(noise(480, 640))
    cell = wrapper.image_processor.patch_size * 2
    assert processed["image_sizes"] == [(grid[0] * cell, grid[1] * cell)]
    assert wrapper.to_model_inputs(processed)["image_grid_thw"].tolist() == [[1, grid[0] * 2, grid[1] * 2]]


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    noise(60, 120).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_images_come_through_the_one_door(subtests: pytest.Subtests, processor: Any) -> None:
    cases: dict[str, tuple[Any, tuple[int, int]]] = {
        "grey": (noise(64, 90).convert("L"), (64, 90)),
        "alpha": (noise(64, 90).convert("RGBA"), (64, 90)),
        "palette": (noise(64, 90).convert("P"), (64, 90)),
        "array": (np.asarray(noise(64, 90)), (64, 90)),
        "turned by EXIF": (turned_jpeg(), (120, 60)),
    }
    for name, (source, size) in cases.items():
        with subtests.test(name):
            wrapper = QwenImageProcessorWrapper(processor)
            one, listed = wrapper.preprocess(source), wrapper.preprocess([source])
            assert one["meta_datas"] == listed["meta_datas"]
            assert one["meta_datas"][0]["original_shape"] == size
            assert one["pixel_values"][0].shape[0] == 3
            assert torch.equal(one["pixel_values"][0], listed["pixel_values"][0])


def test_grey_images_equal_the_processors_own_conversion_and_transparent_ones_lie_on_white(processor: Any) -> None:
    grey, transparent = noise(64, 90).convert("L"), noise(64, 90).convert("RGBA")
    transparent.putalpha(Image.fromarray(np.arange(64 * 90, dtype=np.uint32).reshape(64, 90).astype(np.uint8)))
    on_white = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent).convert("RGB")
    wrapper = QwenImageProcessorWrapper(processor)
    made = wrapper.to_model_inputs(wrapper.preprocess([grey, transparent]))
    assert_bit_equal(made, own_output(processor, [grey, on_white]))  # the processor of 5.17 drops transparency


def test_a_thin_image_has_the_grid_that_the_adapter_gives_it() -> None:
    wrapper = QwenImageProcessorWrapper(combined("qwen2_5_vl"))
    image = noise(1, 150)
    processed = wrapper.preprocess([noise(60, 90), image])
    assert processed["image_sizes"][1] == (28, 140)  # 5.36 cells of 28 pixels; transformers makes it 28 x 700
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    resized = tv.resize(pixels, [28, 140], interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    settings = wrapper.image_processor
    mean, deviation = torch.tensor(settings.image_mean), torch.tensor(settings.image_std)
    expected = (resized / 255 - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(processed["pixel_values"][1], expected, rtol=0, atol=0.02)  # a level of brightness
    assert wrapper.to_model_inputs(processed)["image_grid_thw"].tolist()[1] == [1, 2, 10]


def test_a_changed_size_of_the_processor_counts() -> None:
    image_processor = Qwen2VLImageProcessor()
    wrapper = QwenImageProcessorWrapper(image_processor)
    image_processor.size = {"shortest_edge": 400 * 28 * 28, "longest_edge": 500 * 28 * 28}
    ((height, width),) = wrapper.preprocess(noise(60, 60))["image_sizes"]
    assert 400 <= height * width // 28**2 <= 500


def test_what_was_given_is_not_changed(processor: Any) -> None:
    wrapper, image = QwenImageProcessorWrapper(processor), noise(61, 47)
    before = image.tobytes()
    processed = wrapper.preprocess(image)
    value = processed["pixel_values"][0].clone()
    wrapper.to_model_inputs(processed)["pixel_values"].zero_()
    assert image.tobytes() == before
    assert torch.equal(processed["pixel_values"][0], value)


def test_a_combined_processor_and_its_image_processor_are_wrapped(processor: Any) -> None:
    for given in (processor, processor.image_processor):
        wrapped = wrap_image_processor(given)
        assert isinstance(wrapped, QwenImageProcessorWrapper)
        assert wrapped.image_processor is processor.image_processor
        assert wrap_image_processor(wrapped) is wrapped


class Separate:
    def preprocess(self, images: object) -> object:
        return images


class OtherCombined:
    image_processor = Separate()


def test_everything_else_passes_through_unchanged() -> None:
    cases: list[object] = [CLIPImageProcessor(), Separate(), OtherCombined(), byte_level_tokenizer(), None]
    for other in cases:
        assert wrap_image_processor(other) is other, other


def test_a_subclass_of_the_image_processor_is_wrapped() -> None:
    class Ours(Qwen2VLImageProcessor):
        pass

    assert isinstance(wrap_image_processor(Ours()), QwenImageProcessorWrapper)


def test_the_package_offers_the_wrapper_without_importing_torch() -> None:
    assert vlm_adapters_qwen.wrap_image_processor is wrap_image_processor
    assert vlm_adapters_qwen.QwenImageProcessorWrapper is QwenImageProcessorWrapper
    with pytest.raises(AttributeError, match="no_such_name"):
        vlm_adapters_qwen.no_such_name  # noqa: B018 - asking is the test
    code = "import sys, vlm_adapters_qwen; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unusable_images_are_typed_errors(subtests: pytest.Subtests) -> None:
    cases: list[tuple[Any, str]] = [
        ([], "is empty"),
        ("https://example.com/cat.png", "is a URL"),
        ([b"hello"], "."),
        (7, "int is not an image"),
        ([[Image.new("RGB", (9, 9))]], "list is not an image"),
        (Image.new("RGB", (4000, 4)), "."),
    ]
    for images, message in cases:
        with subtests.test(images=images), pytest.raises(ImageError, match=message):
            QwenImageProcessorWrapper(Qwen2VLImageProcessor()).preprocess(images)


def test_unusable_pixel_values_are_typed_errors(subtests: pytest.Subtests) -> None:
    cases: list[tuple[Any, str]] = [
        ([], "is empty"),
        ([torch.zeros(3, 28, 40)], r"28x40 .* cells of 28x28.*multiples of 28"),
        ([torch.zeros(3, 0, 28)], "0x28"),
        ([torch.zeros(1, 28, 28)], r"\(1, 28, 28\)"),
        ([torch.zeros(28, 28)], r"\(28, 28\)"),
        ([torch.zeros(3, 28, 28, dtype=torch.uint8)], "uint8"),
        ([np.zeros((3, 28, 28))], "ndarray"),
    ]
    for values, message in cases:
        with subtests.test(values=values), pytest.raises(ImageError, match=message):
            QwenImageProcessorWrapper(Qwen2VLImageProcessor()).to_model_inputs(values)


def test_a_processor_that_does_not_resize_takes_whole_cells_only() -> None:
    image_processor = Qwen2VLImageProcessor(do_resize=False)
    wrapper = QwenImageProcessorWrapper(image_processor)
    with pytest.raises(ImageError, match=r"30x28 .* multiples of 28"):
        wrapper.preprocess([noise(56, 28), noise(30, 28)])
    made = wrapper.to_model_inputs(wrapper.preprocess(noise(56, 28)))
    assert_bit_equal(made, image_processor(images=noise(56, 28), return_tensors="pt"))


def test_settings_that_the_processor_refuses_are_a_typed_error() -> None:
    image_processor = Qwen2VLImageProcessor()
    image_processor.size = {"height": 56, "width": 56}
    with pytest.raises(ImageError, match=r"Qwen2VLImageProcessor has the size .*56.*shortest_edge and longest_edge"):
        QwenImageProcessorWrapper(image_processor).preprocess(noise(60, 90))


def test_another_processor_cannot_be_wrapped() -> None:
    with pytest.raises(CheckpointError, match="CLIPImageProcessor is not a processor of Qwen2-VL"):
        QwenImageProcessorWrapper(CLIPImageProcessor())
    assert issubclass(CheckpointError, AdapterError)
