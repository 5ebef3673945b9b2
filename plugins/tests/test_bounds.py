"""What a checkpoint's files ask for is bounded before it is done, and the limits can be raised by argument."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_adapters import GridRequest, GroundedVLM, Message, Prompt, load_adapter, open_dataset
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CaptureError, CheckpointError, DecoderError, ImageError, PromptError
from vlm_adapters.limits import Limits

LAB = Path(__file__).parents[2] / "examples" / "lab"
IMAGE = open_dataset("scenes:count=1")[0].image.resize((64, 48))
PROMPT = Prompt.describe(IMAGE, "a red circle and a blue square", ["a red circle"])
THINKING = (
    "{% for m in messages %}{{ m['role'] }}: {% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}"
    "{% set t = p['text'] %}{% if m['role'] == 'assistant' and '</think>' in t %}"
    "{% set t = t.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ t }}{% endif %}{% endfor %}</s>{% endfor %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of an embedded model."""
    copy = tmp_path / "model"
    shutil.copytree(embedded_checkpoints()["tiny-llava"], copy)
    return copy


def edit(file: Path, *path: str, value: object) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11])
def test_hostile_checkpoints_give_maps_or_typed_errors(tmp_path: Path, seed: int) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, LAB / "hostile_checkpoints.py", "--cases", "400", "--sample", "60", "--seed", str(seed)]
    done = subprocess.run([*command, "--report", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["cases"], found["fell"]) == (60, [])


def test_hostile_texts_never_move_the_image(script: Any) -> None:
    names = ["deepseek_vl", "fuyu", "llava", "qwen2_5_vl"]
    found = script("hostile_texts").measure(names, 120, seed=3)
    assert found["faults"] == []
    assert sum(count["encoded"] for count in found["families"].values()) > 60


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
def test_memory_does_not_grow(script: Any) -> None:
    found = script("measure_memory").measure(groundings=20, loads=12)
    assert found["groundings"]["last / first"] < 1.1
    assert found["loads"]["last / first"] < 1.1


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_more_layers_than_the_limit_are_refused(folder: Path, part: str) -> None:
    edit(folder / "config.json", part, "num_hidden_layers", value=10**9)
    with pytest.raises(CheckpointError, match="asks for num_hidden_layers = 1000000000; at most 10,000 layers"):
        load_adapter(folder, device="cpu")


def test_the_limit_of_layers_is_the_callers(folder: Path) -> None:
    load_adapter(folder, device="cpu", limits=Limits(max_layers=6))
    with pytest.raises(CheckpointError, match="at most 5 layers"):
        load_adapter(folder, device="cpu", limits=Limits(max_layers=5))


def test_a_model_larger_than_its_weights_is_not_built(folder: Path) -> None:
    edit(folder / "config.json", "text_config", value={"model_type": "llama"})  # the default has 7 billion weights
    with pytest.raises(CheckpointError, match=r"asks for more than .* weights, and its .*safetensors hold .* bytes"):
        load_adapter(folder, device="cpu")


def test_the_pixels_after_resizing_are_bounded_before_they_are_made() -> None:
    adapter = load_adapter("tiny-qwen2_5_vl", device="cpu", min_pixels=10**8, max_pixels=10**9)
    with pytest.raises(ImageError, match=r"The processor makes 1.* pixels of an image of 64 x 48; at most 20,000,000"):
        adapter.preprocess([PROMPT])


def test_the_limit_of_resized_pixels_is_the_callers() -> None:
    limits = Limits(max_resized_pixels=1000)
    with pytest.raises(ImageError, match="at most 1,000 are allowed"):
        load_adapter("tiny-qwen2_5_vl", device="cpu", limits=limits).preprocess([PROMPT])


@pytest.mark.parametrize(("factor", "times", "is_good"), [(100, 1, True), (101, 1, False), (4, 4, False), (2, 6, True)])
def test_a_normaliser_may_not_multiply_a_text(folder: Path, factor: int, times: int, is_good: bool) -> None:  # noqa: FBT001
    replace = {"type": "Replace", "pattern": {"String": "q"}, "content": "q" * factor}
    edit(folder / "tokenizer.json", "normalizer", value={"type": "Sequence", "normalizers": [replace] * times})
    if is_good:
        load_adapter(folder, device="cpu")
    else:
        with pytest.raises(CheckpointError, match=r"may make .* characters of one; at most 100"):
            load_adapter(folder, device="cpu")


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_attention_that_is_not_finite_names_its_layer(layer: int, value: float) -> None:
    adapter: Any = load_adapter("tiny-llava", device="cpu")
    with torch.no_grad():
        adapter.model.get_decoder().layers[layer].self_attn.q_proj.weight[0] = value
    inputs = adapter.preprocess([PROMPT])
    with pytest.raises(CaptureError, match=f"The attention of layer {layer} is not a number"):
        adapter.extract(inputs, GridRequest())


@pytest.mark.parametrize(("key", "value"), [("image_std", [0.0] * 3), ("rescale_factor", float("inf"))])
def test_pixels_that_are_not_finite_are_an_error(folder: Path, key: str, value: object) -> None:
    edit(folder / "processor_config.json", "image_processor", key, value=value)
    adapter = load_adapter(folder, device="cpu")
    inputs = adapter.preprocess([PROMPT])
    with pytest.raises(CaptureError, match="The attention of layer 0 is not a number"):
        adapter.extract(inputs)


def chat(answer: str, *, last: str = "a red circle") -> Prompt:
    turns = [Message("user", (IMAGE, "What?")), Message("assistant", (answer,)), Message("user", ("And?",))]
    return Prompt.chat([*turns, Message("assistant", (last,))], [(0, len(last))])


@pytest.fixture
def thinker() -> Any:
    """An adapter whose template cuts thinking."""
    adapter: Any = load_adapter("tiny-llava", device="cpu")
    adapter.processor.chat_template = THINKING
    return adapter


def test_thinking_that_the_template_cuts_leaves_what_it_shows(thinker: Any) -> None:
    with_thinking = thinker.preprocess([chat("<think>red? yes</think>\n\nA circle.")])
    without = thinker.preprocess([chat("A circle.")])
    assert with_thinking.tensors["input_ids"].tolist() == without.tensors["input_ids"].tolist()
    assert [p.tolist() for p in with_thinking.phrase_tokens[0]] == [p.tolist() for p in without.phrase_tokens[0]]


def test_thinking_in_the_text_of_the_phrases_is_named(thinker: Any) -> None:
    with pytest.raises(PromptError, match=r"changes the thinking .* of the assistant\. Give the messages without"):
        thinker.preprocess([chat("A circle.", last="<think>no</think>\na red circle")])


def test_a_text_of_all_private_characters_is_refused() -> None:
    text = "".join(map(chr, range(0xF0000, 0xFFFFE)))
    with pytest.raises(PromptError, match="contains every private-use character"):
        load_adapter("tiny-llava", device="cpu").preprocess([Prompt.describe(IMAGE, text)])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_lora_of_another_rank_than_its_weights_is_not_built(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base: Any = load_adapter("tiny-llava", device="cpu")
    settings = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj")
    peft.get_peft_model(base.model, settings).save_pretrained(tmp_path)
    edit(tmp_path / "adapter_config.json", "base_model_name_or_path", value="tiny-llava")
    load_adapter(tmp_path, device="cpu")
    edit(tmp_path / "adapter_config.json", "r", value=10**6)
    with pytest.raises(CheckpointError, match="they are incomplete, or belong to another config"):
        load_adapter(tmp_path, device="cpu")


def test_a_larger_canvas_than_the_limit_is_refused_before_it_is_made(folder: Path) -> None:
    edit(folder / "decoder" / "config.json", "unet", "canvas", value=2000)
    with pytest.raises(DecoderError, match="is 2000 cells; at most 1024 are allowed"):
        GroundedVLM.from_pretrained(folder, device="cpu")
    GroundedVLM.from_pretrained(folder, device="cpu", limits=Limits(max_canvas=2000))
