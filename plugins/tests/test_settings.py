"""What a checkpoint's own files say of kernels, outputs and generation changes nothing of what an adapter gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vlm_adapters import Answer, GridRequest, Prompt, TransformersBackbone, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, LoadingWarning
from vlm_adapters.hf import pretrained as pretrained_module

NAMES = sorted(embedded_checkpoints())
SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]

CONFIG: dict[str, object] = {
    "return_dict": False,
    "output_attentions": True,
    "output_hidden_states": True,
    "use_cache": False,
    "torchscript": True,
    "_experts_implementation": "eager",
    "gradient_checkpointing": True,
    "do_sample": True,
    "num_beams": 3,
    "temperature": 9.0,
}
GENERATION: dict[str, object] = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
    "output_attentions": True,
    "output_hidden_states": True,
    "use_cache": False,
    "do_sample": True,
    "temperature": 9.0,
    "top_k": 3,
    "top_p": 0.5,
    "min_p": 0.5,
    "typical_p": 0.5,
    "num_beams": 3,
    "repetition_penalty": 9.0,
    "encoder_repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[number] for number in range(20, 200)],
    "suppress_tokens": list(range(20, 200)),
    "begin_suppress_tokens": list(range(20, 200)),
    "forced_eos_token_id": 2,
    "min_new_tokens": 7,
    "max_length": 3,
    "max_new_tokens": 2,
    "length_penalty": 9.0,
    "early_stopping": True,
    "guidance_scale": 3.0,
    "prompt_lookup_num_tokens": 3,
    "cache_implementation": "static",
    "exponential_decay_length_penalty": [1, 9.0],
    "stop_strings": ["e"],
    "renormalize_logits": True,
    "remove_invalid_values": True,
}


def outputs(checkpoint: str | Path) -> tuple[Tensor, Tensor, Tensor, Answer]:
    """Maps, hidden states, logits and an answer."""
    adapter = load_adapter(checkpoint, device="cpu")
    assert isinstance(adapter, TransformersBackbone)
    inputs = adapter.preprocess([SCENE.prompt])
    (grids,) = adapter.extract(inputs, GridRequest(hidden_layers=[1]))[0]
    with torch.no_grad():
        logits = adapter.model(**inputs.tensors).logits
    answer = adapter.generate(Prompt(SCENE.prompt.messages[:1]), max_new_tokens=8)
    return grids.attention, grids.hidden, logits, answer


@cache
def plain(name: str) -> tuple[Tensor, Tensor, Tensor, Answer]:
    return outputs(name)


def assert_same(checkpoint: Path, name: str) -> None:
    *found, answer = outputs(checkpoint)
    *expected, right = plain(name)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Tensor)
        assert torch.equal(one, other)  # type: ignore[arg-type]  # the answer is the last
    assert answer == right


@pytest.fixture
def copied(tmp_path: Path) -> Any:
    def copy(name: str) -> Path:
        ignored = shutil.ignore_patterns("decoder", "*.md")
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / name  # a new one at every call
        return Path(shutil.copytree(embedded_checkpoints()[name], folder, ignore=ignored))

    return copy


def write(path: Path, part: str | None, settings: dict[str, object]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    (config if part is None else config[part]).update(settings)
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_of_config_json_changes_nothing(name: str, copied: Any, subtests: pytest.Subtests) -> None:
    for part, setting in product([None, "text_config", "vision_config"], CONFIG):
        with subtests.test(part=part, setting=setting):
            folder = copied(name)
            write(folder / "config.json", part, {setting: CONFIG[setting]})
            assert_same(folder, name)


def test_a_setting_of_generation_config_json_changes_nothing(copied: Any, subtests: pytest.Subtests) -> None:
    for setting, value in GENERATION.items():
        with subtests.test(setting=setting):
            folder = copied("tiny-llava")
            write(folder / "generation_config.json", None, {setting: value})
            assert_same(folder, "tiny-llava")


def test_several_answers_that_generation_config_json_asks_for_are_one(copied: Any) -> None:
    folder = copied("tiny-llava")
    write(folder / "generation_config.json", None, {"num_return_sequences": 2, "num_beams": 2})
    assert_same(folder, "tiny-llava")


def test_a_question_is_answered_until_the_token_that_the_checkpoint_ends_with(copied: Any) -> None:
    folder = copied("tiny-llava")
    adapter = load_adapter(folder, device="cpu")
    assert isinstance(adapter, TransformersBackbone)
    question = Prompt(SCENE.prompt.messages[:1])
    answer = adapter.generate(question, max_new_tokens=8)
    assert answer.ids is not None
    last = answer.ids[3]
    write(folder / "generation_config.json", None, {"eos_token_id": [2, last]})
    ended = load_adapter(folder, device="cpu")
    assert isinstance(ended, TransformersBackbone)
    ids = ended.generate(question, max_new_tokens=8).ids
    assert ids == answer.ids[: answer.ids.index(last) + 1]


KERNELS = (
    "flash_attention_2",
    "flash_attention_3",
    "kernels-community/flash-attn2",
    "someones/kernel@main:run",
    "fast",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_that_is_not_here_is_replaced_in_one_line(name: str, copied: Any, subtests: pytest.Subtests) -> None:
    for key, kernel in product(["attn_implementation", "_attn_implementation"], KERNELS):
        with subtests.test(key=key, kernel=kernel):
            folder = copied(name)
            write(folder / "config.json", None, {key: kernel})
            with pytest.warns(LoadingWarning) as caught:
                load_adapter(folder, device="cpu")
            (message,) = (str(warning.message) for warning in caught)
            named = f"config.json of {folder} names the attention kernel {kernel}, which is not available"
            assert message == f"{named}; sdpa is used instead."
            with pytest.warns(LoadingWarning):
                assert_same(folder, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_of_one_part_that_is_not_here_changes_nothing(
    name: str, copied: Any, subtests: pytest.Subtests
) -> None:
    for part in ("text_config", "vision_config"):
        with subtests.test(part=part), warnings.catch_warnings():
            warnings.simplefilter("ignore", LoadingWarning)
            folder = copied(name)
            write(folder / "config.json", part, {"_attn_implementation": "flash_attention_2"})
            assert_same(folder, name)


def test_a_kernel_and_settings_together_change_nothing(copied: Any) -> None:
    folder = copied("tiny-llava")
    settings = {
        name: value for name, value in CONFIG.items() if name != "output_attentions"
    }  # no file has it and flash
    write(folder / "config.json", None, {"_attn_implementation": "flash_attention_2", **settings})
    with pytest.warns(LoadingWarning):
        assert_same(folder, "tiny-llava")


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_a_kernel_that_is_here_is_kept_without_a_word(kernel: str, copied: Any) -> None:
    folder = copied("tiny-llava")
    write(folder / "config.json", None, {"_attn_implementation": kernel})
    adapter = load_adapter(folder, device="cpu")
    assert isinstance(adapter, TransformersBackbone)
    assert adapter.model.config.get_text_config()._attn_implementation == kernel  # noqa: SLF001 - no other reader


def test_the_caller_decides_over_a_kernel_of_the_file_without_a_word(copied: Any) -> None:
    folder = copied("tiny-llava")
    write(folder / "config.json", None, {"_attn_implementation": "flash_attention_2"})
    adapter = load_adapter(folder, device="cpu", attn_implementation="eager")
    assert isinstance(adapter, TransformersBackbone)
    assert adapter.model.config.get_text_config()._attn_implementation == "eager"  # noqa: SLF001 - no other reader


@pytest.mark.parametrize(
    ("on_cpu", "installed", "expected"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_a_flash_kernel_is_kept_where_it_is_installed_and_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, *, on_cpu: bool, installed: bool, expected: bool
) -> None:
    monkeypatch.setattr(
        pretrained_module, "find_spec", lambda name: name if installed and name == "flash_attn" else None
    )
    placement = pretrained_module.Placement(None, on_cpu, {})
    assert pretrained_module._can_run("flash_attention_2", placement) is expected  # noqa: SLF001 - needs a GPU else


def test_the_command_line_reports_it_in_one_line(copied: Any) -> None:
    folder = copied("tiny-llava")
    write(folder / "config.json", None, {"_attn_implementation": "flash_attention_2"})
    command = [sys.executable, "-m", "vlm_adapters", "probe", str(folder), "--device", "cpu", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: config.json of {folder} names the attention kernel flash_attention_2, which ")
    assert json.loads(done.stdout)["adapter"] == "llava"


def test_running_out_of_memory_is_not_blamed_on_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_adapter("tiny-llava", device="cpu")


def test_an_error_of_transformers_is_reported_with_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no\nluck.")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", broken)
    with pytest.raises(CheckpointError, match=r"tiny-llava cannot be loaded: no luck\. .* Found transformers \d.*\d\."):
        load_adapter("tiny-llava", device="cpu")


def test_an_error_within_transformers_is_typed_and_names_the_versions(copied: Any) -> None:
    folder = copied("tiny-llava")
    write(folder / "config.json", None, {"use_return_dict": False})  # a property of configs, which cannot be set
    with pytest.raises(
        CheckpointError, match=r"Loading .*tiny-llava failed with AttributeError: .* Found transformers"
    ):
        load_adapter(folder, device="cpu")
