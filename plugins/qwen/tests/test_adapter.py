"""The adapter of the Qwen-VL family: images to tensors, grids, options, and loading from a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLImageProcessor

import vlm_adapters_qwen.adapter
from vlm_adapters import AdapterError, GridRequest, GroundedVLM, Message, Prompt, load_adapter
from vlm_adapters.errors import BackboneError, CheckpointError, ImageError, OptionError, RequestError
from vlm_adapters_qwen.adapter import QwenAdapter
from vlm_adapters_qwen.tiny import qwen2_5_vl


@cache
def adapter() -> QwenAdapter:
    return qwen2_5_vl()


def with_limits(**options: Any) -> QwenAdapter:
    return QwenAdapter(adapter().model, adapter().processor, **options)


def noise(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(height * width)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def shapes(of: QwenAdapter, *images: Image.Image) -> list[tuple[int, int]]:
    inputs = of.preprocess([Prompt.chat([Message("user", (*images, "a cat"))])])
    return [grid.shape for grid in of.locate_image_tokens(inputs)[0]]


def test_an_image_is_resized_exactly_once(subtests: pytest.Subtests) -> None:
    cases = [((100, 150), (112, 140)), ((61, 47), (56, 56)), ((400, 700), (168, 280)), ((56, 84), (56, 84))]
    for size, resized in cases:
        with subtests.test(size=size):
            image = noise(*size)
            once = image.resize(resized[::-1], Image.Resampling.BICUBIC)
            expected = adapter().processor.image_processor(once, do_resize=False, return_tensors="pt")
            tensors = adapter().preprocess([Prompt.describe(image, "a cat")]).tensors
            assert torch.equal(tensors["pixel_values"], expected["pixel_values"])
            assert tensors["image_grid_thw"].tolist() == [[1, resized[0] // 14, resized[1] // 14]]


@pytest.mark.parametrize("patch_size", [14, 16])
def test_images_are_prepared_for_the_processors_own_patch_size(
    monkeypatch: pytest.MonkeyPatch, patch_size: int
) -> None:
    calls: list[dict[str, Any]] = []
    real = vlm_adapters_qwen.adapter.process_vision_info

    def spy(conversation: Any, **options: Any) -> Any:
        calls.append(options | {"images": [part["image"] for part in conversation[0]["content"]]})
        return real(conversation, **options)

    monkeypatch.setattr(vlm_adapters_qwen.adapter, "process_vision_info", spy)
    monkeypatch.setattr(adapter().processor, "image_processor", Qwen2VLImageProcessor(patch_size=patch_size))
    with_limits(max_pixels=10**6).process_images([[noise(50, 60)], [noise(90, 30)]])
    assert [call["image_patch_size"] for call in calls] == [patch_size] * 2
    assert [type(image) for call in calls for image in call["images"]] == [Image.Image] * 2


def test_the_published_limits_give_480_by_640_pixels_17_by_23_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter().processor, "image_processor", Qwen2VLImageProcessor())
    published = with_limits()
    inputs = published.preprocess([Prompt.describe(noise(480, 640), "a cat")])
    ((grid,),) = published.locate_image_tokens(inputs)
    assert grid.shape == (17, 23)
    assert grid.box == (0, 0, 640, 480)
    assert int(inputs.tensors["mm_token_type_ids"].sum()) == 391


def test_a_larger_smallest_area_gives_a_finer_grid() -> None:
    image = noise(56, 112)
    assert shapes(with_limits(), image) == [(2, 4)]
    assert shapes(with_limits(min_pixels=32 * 784), image) == [(4, 8)]


def test_a_smaller_largest_area_gives_a_coarser_grid() -> None:
    assert shapes(with_limits(max_pixels=8 * 784), noise(112, 224)) == [(2, 4)]


def test_senseless_limits_are_refused_with_both_values(subtests: pytest.Subtests) -> None:
    cases: list[dict[str, Any]] = [
        {"min_pixels": -1},
        {"min_pixels": 0},
        {"min_pixels": 783},
        {"max_pixels": 0},
        {"min_pixels": 5000, "max_pixels": 4000},
        {"min_pixels": 10**9},
        {"min_pixels": float("nan")},
        {"max_pixels": "many"},
    ]
    for limits in cases:
        with (
            subtests.test(limits=limits),
            pytest.raises(OptionError, match=r"min_pixels=.* and max_pixels=.* do not fit\. Give 784 \(one cell\) <= "),
        ):
            with_limits(**limits)


@pytest.mark.parametrize("size", [(5, 900), (900, 5)])
def test_an_image_too_narrow_for_the_limits_is_a_typed_error(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"{size[1]} x {size[0]} pixels has no cell .* Crop it"):
        with_limits(min_pixels=784, max_pixels=784 * 4).preprocess([Prompt.describe(noise(*size), "a cat")])


def test_an_image_beyond_the_aspect_of_the_family_is_a_typed_error() -> None:
    with pytest.raises(ImageError, match="aspect"):
        adapter().preprocess([Prompt.chat([Message("user", (Image.new("RGB", (4000, 10)), "a cat"))])])


def test_several_images_of_a_prompt_give_their_grids_in_order() -> None:
    images = [noise(56, 112), noise(112, 56), noise(84, 84)]
    first = Message("user", (images[0], "one", images[1]))
    prompt = Prompt.chat([first, Message("assistant", ("two",)), Message("user", (images[2], "three"))], ["three"])
    inputs = adapter().preprocess([prompt])
    grids = adapter().locate_image_tokens(inputs)[0]
    assert [grid.shape for grid in grids] == [(2, 4), (4, 2), (3, 3)]
    assert [grid.image for grid in grids] == [0, 1, 2]
    assert [grid.box for grid in grids] == [(0, 0, 112, 56), (0, 0, 56, 112), (0, 0, 84, 84)]
    positions = torch.cat([grid.tokens.flatten() for grid in grids])
    assert positions.equal(inputs.tensors["mm_token_type_ids"][0].nonzero().flatten())
    extracted = adapter().extract(inputs, GridRequest())[0]
    assert [grids.attention.shape for grids in extracted] == [(1, 3, 4, 2, 4), (1, 3, 4, 4, 2), (1, 3, 4, 3, 3)]


def test_prompts_with_different_numbers_of_images_share_a_batch() -> None:
    one = Prompt.chat([Message("user", (noise(56, 84), "a cat"))])
    two = Prompt.chat([Message("user", (noise(84, 56), noise(56, 56), "a dog and a very long text"))])
    inputs = adapter().preprocess([two, one])
    found = adapter().locate_image_tokens(inputs)
    assert [[grid.shape for grid in grids] for grids in found] == [[(3, 2), (2, 2)], [(2, 3)]]


def test_the_model_is_given_which_tokens_show_the_image() -> None:
    # Without them Qwen2.5-VL silently counts positions as if all were text, and attends otherwise.
    inputs = adapter().preprocess([Prompt.describe(noise(112, 140), "a cat", ["cat"])])
    assert "mm_token_type_ids" in inputs.tensors
    blind = {name: tensor for name, tensor in inputs.tensors.items() if name != "mm_token_type_ids"}
    with torch.no_grad():
        with_types, without_types = (adapter().model(**tensors).logits for tensors in (inputs.tensors, blind))
    assert float((with_types - without_types).abs().max()) > 1e-3


def test_the_info_is_that_of_the_config() -> None:
    info = adapter().info
    assert (info.model_type, info.num_layers, info.attention_layers) == ("qwen2_5_vl", 3, (0, 1, 2))
    assert (info.num_heads, info.hidden_size, info.cell) == (4, 64, (28, 28))
    assert info.channels == 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("models") / "tiny"
    adapter().model.save_pretrained(folder)
    adapter().processor.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_a_saved_checkpoint_is_loaded_by_its_model_type(checkpoint: Path) -> None:
    loaded = load_adapter(checkpoint, device="cpu", dtype="float32")
    assert isinstance(loaded, QwenAdapter)
    assert loaded.info.checkpoint == str(checkpoint)
    assert loaded.info.revision is None
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    prompt = Prompt.describe(noise(100, 150), "a cat on a mat", ["cat", "a mat"])
    before, after = (of.extract(of.preprocess([prompt]), GridRequest())[0][0] for of in (adapter(), loaded))
    assert torch.equal(before.attention, after.attention)


def test_the_precision_is_the_one_asked_for(checkpoint: Path) -> None:
    cases: list[tuple[Any, torch.dtype]] = [
        ("auto", torch.float32),
        ("bfloat16", torch.bfloat16),
        (torch.float16, torch.float16),
        ("float32", torch.float32),
    ]
    for dtype, expected in cases:
        loaded: Any = load_adapter(checkpoint, device=torch.device("cpu"), dtype=dtype)
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}, dtype


def test_options_of_the_family_pass_through(checkpoint: Path) -> None:
    loaded: Any = load_adapter(checkpoint, device="cpu", min_pixels=1568, max_pixels=784 * 20)
    assert (loaded.min_pixels, loaded.max_pixels) == (1568, 784 * 20)


def test_senseless_options_are_typed_errors(subtests: pytest.Subtests, checkpoint: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "float99"}, "Unknown dtype 'float99'. Use auto, float32"),
        ({"dtype": "nn"}, "Unknown dtype 'nn'"),
        ({"device": "gpu0"}, "Unknown device 'gpu0'"),
        ({"min_pixel": 3136}, "QwenAdapter has no option min_pixel. Its options are: min_pixels, max_pixels"),
    ]
    for options, message in cases:
        with subtests.test(options=options):
            with pytest.raises(OptionError) as caught:
                load_adapter(checkpoint, **{"device": "cpu", **options})
            assert message in str(caught.value)


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a local directory"):
        load_adapter(tmp_path / "nowhere", device="cpu")


def without_a_layer(path: Path) -> None:
    weights = load_file(path)
    save_file({name: w for name, w in weights.items() if "layers.1." not in name}, path, metadata={"format": "pt"})


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def remove(path: Path) -> None:
    path.unlink()


def as_a_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100\n", encoding="utf-8")


def of_another_size(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace('"hidden_size": 64', '"hidden_size": 128'))


HALF: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no weights": ("model.safetensors", remove, "no file named model.safetensors"),
    "weights cut off": ("model.safetensors", cut_off, "header"),
    "weights as a pointer": ("model.safetensors", as_a_pointer, "header"),
    "a layer missing": (
        "model.safetensors",
        without_a_layer,
        "lacks 12 of its weights, among them model.language_model",
    ),
    "weights of another size": ("config.json", of_another_size, "mismatched"),
    "no config": ("config.json", remove, "No config.json"),
    "no processor": ("processor_config.json", remove, "image processor"),
    "a broken processor": ("processor_config.json", as_a_pointer, "not a valid JSON"),
    "no tokenizer": ("tokenizer.json", remove, "tokenizer"),
}


@pytest.mark.parametrize(("name", "change", "message"), HALF.values(), ids=HALF)
def test_half_a_checkpoint_is_reported_in_one_line(
    copy: Path, name: str, change: Callable[[Path], None], message: str
) -> None:
    change(copy / name)
    with pytest.raises(CheckpointError) as caught:
        load_adapter(copy, device="cpu")
    assert message in str(caught.value)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_checkpoint_without_a_chat_template_is_an_error_that_names_it(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    loaded = load_adapter(copy, device="cpu")
    with pytest.raises(AdapterError, match="chat template"):
        loaded.preprocess([Prompt.describe(noise(56, 56), "a cat")])


def test_the_first_token_of_a_padded_prompt_has_no_predictor() -> None:
    image = Image.new("RGB", (56, 56))
    short = Prompt.describe(image, "a cat", ["cat"])
    inputs = adapter().preprocess([short, Prompt.describe(image, "a cat " * 9)])
    first = inputs.tensors["attention_mask"][0].nonzero()[0]
    assert first.item() > 0
    with pytest.raises(RequestError, match="no row for the first token"):
        adapter().extract(replace(inputs, phrase_tokens=((first,), ())), GridRequest(align="predictor"))


def test_a_decoder_comes_back_with_the_image_sizes_that_it_was_trained_on(tmp_path: Path) -> None:
    first = qwen2_5_vl()
    first.model.save_pretrained(tmp_path / "backbone")
    first.processor.save_pretrained(tmp_path / "backbone")
    adapter = load_adapter(tmp_path / "backbone", device="cpu", min_pixels=28 * 28 * 20, max_pixels=28 * 28 * 30)
    GroundedVLM.untrained(adapter, base_width=2).save_pretrained(tmp_path / "decoder")
    found = GroundedVLM.from_pretrained(tmp_path / "decoder", device="cpu").adapter.info
    assert dict(found.options) == {"min_pixels": 28 * 28 * 20, "max_pixels": 28 * 28 * 30}


@pytest.mark.parametrize("method", ["extract", "generate", "preprocess"])
def test_what_transformers_raises_names_the_versions(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = qwen2_5_vl()
    caption = Prompt.describe(noise(56, 84), "a cat", ["cat"])
    inputs = own.preprocess([caption])

    def fail(*_: object, **__: object) -> None:
        raise TypeError("'NoneType' object is not subscriptable")

    broken = type(own.processor) if method == "preprocess" else type(own.model.model)
    monkeypatch.setattr(broken, "__call__" if method == "preprocess" else "forward", fail)
    work = {
        "extract": lambda: own.extract(inputs),
        "generate": lambda: own.generate(Prompt(caption.messages[:1])),
        "preprocess": lambda: own.preprocess([caption]),
    }
    with pytest.raises(BackboneError, match=rf"TypeError: 'NoneType' .*Found transformers {version('transformers')}"):
        work[method]()
