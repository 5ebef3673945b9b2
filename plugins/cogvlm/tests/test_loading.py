"""A folder in the form of the published repositories: no `model_type`, no processor, tensors by their names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlm_adapters import GridRequest, Prompt, load_adapter
from vlm_adapters.errors import CheckpointError
from vlm_adapters.testing.tiny import random_model
from vlm_adapters_cogvlm import processor
from vlm_adapters_cogvlm.adapter import CogVLMAdapter
from vlm_adapters_cogvlm.processor import CogVLMProcessor
from vlm_adapters_cogvlm.tiny import VISION, cogvlm, tiny_config

PROMPT = Prompt.describe(Image.new("RGB", (30, 50), "red"), "a red cat", ["red cat"])
BLOCK = "model.vision.transformer.layers.0."


@pytest.fixture
def folder(tmp_path: Path, llama_tokenizer: Any) -> Path:
    """The published form, with a tokenizer beside the model as the user is to copy it."""
    tokenizer = llama_tokenizer()
    model = random_model(tiny_config(vocab_size=len(tokenizer)))
    config = {
        "architectures": ["CogVLMForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_cogvlm.CogVLMConfig",
            "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM",
        },
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "max_position_embeddings": 2048,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "template_version": "chat",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.35.0",
        "use_cache": True,
        "vision_config": {
            "dropout_prob": 0.0,
            "hidden_act": "gelu",
            "in_channels": 3,
            "layer_norm_eps": 1e-06,
            **VISION,
        },
        "vocab_size": len(tokenizer),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("configuration_cogvlm", "modeling_cogvlm"):
        (tmp_path / f"{name}.py").write_text('raise SystemExit("code of the repository ran")')
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rows(adapter: Any) -> Tensor:
    attention: Tensor = adapter.extract(adapter.preprocess([PROMPT]), GridRequest())[0][0].attention
    return attention


def test_a_published_folder_is_loaded_with_all_its_tensors(folder: Path, llama_tokenizer: Any) -> None:
    adapter: Any = load_adapter(folder, device="cpu")
    assert isinstance(adapter, CogVLMAdapter)
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(adapter.model.state_dict()[name], tensor), name
    tokenizer = llama_tokenizer()
    config = tiny_config(vocab_size=len(tokenizer))
    same = CogVLMAdapter(random_model(config), CogVLMProcessor.of(config, tokenizer))
    torch.testing.assert_close(rows(adapter), rows(same))


def test_a_fresh_process_finds_the_adapter(folder: Path) -> None:
    code = f"from vlm_adapters import load_adapter; print(load_adapter({str(folder)!r}, device='cpu').info.model_type)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "cogvlm"


def test_frequencies_of_rotary_positions_are_left_out(folder: Path) -> None:
    expected = rows(load_adapter(folder, device="cpu"))
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(3)}
    change_tensors(folder, lambda tensors: tensors.update(frequencies))
    assert torch.equal(rows(load_adapter(folder, device="cpu")), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.vision.boi"), r"1 missing keys, among them model\.vision\.boi"),
        (
            lambda tensors: tensors.update({f"{BLOCK}attention.q_bias": torch.ones(32)}),
            r"1 unexpected keys, among them model\.vision\.transformer\.layers\.0\.attention\.q_bias",
        ),
        (
            lambda tensors: tensors.update({"model.vision.eoi": torch.ones(1, 1, 65)}),
            r"1 mismatched keys, among them .*model\.vision\.eoi",
        ),
    ],
    ids=["missing", "unexpected", "wrongly shaped"],
)
def test_other_tensors_are_an_error(folder: Path, change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    change_tensors(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(folder, device="cpu")


def test_cogvlm2_is_refused_before_its_weights_are_read(folder: Path) -> None:
    change_config(folder, num_multi_query_heads=8)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"CogVLM2.*not implemented"):
        load_adapter(folder, device="cpu")


def test_positions_that_do_not_fit_the_image_are_an_error(folder: Path) -> None:
    change_config(folder, vision_config=VISION | {"num_positions": 18})
    with pytest.raises(CheckpointError, match=r"18 positions.*needs 17"):
        load_adapter(folder, device="cpu")


def test_a_folder_without_a_tokenizer_says_which_to_copy(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"lmsys/vicuna-7b-v1\.5.*Copy its tokenizer\.model"):
        load_adapter(folder, device="cpu", local_files_only=True)


def test_a_sentencepiece_model_says_what_reads_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "tokenizer.model").write_bytes(b"")
    monkeypatch.setattr(processor, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match="pip install sentencepiece protobuf"):
        load_adapter(folder, device="cpu", local_files_only=True)


def test_another_tokenizer_is_an_error(folder: Path) -> None:
    change_config(folder, vocab_size=32000)
    with pytest.raises(CheckpointError, match=r"tokens and the model 32000"):
        load_adapter(folder, device="cpu")


def test_a_class_that_no_plugin_knows_is_an_error(folder: Path) -> None:
    change_config(folder, architectures=["AnotherForCausalLM"])
    with pytest.raises(CheckpointError, match="no model_type"):
        load_adapter(folder, device="cpu")


@pytest.mark.parametrize(("given", "used"), [({}, "sdpa"), ({"attn_implementation": "eager"}, "eager")])
def test_tower_and_layers_have_the_same_kernel(folder: Path, given: dict[str, str], used: str) -> None:
    loaded: Any = load_adapter(folder, device="cpu", **given)  # type: ignore[arg-type]
    config = loaded.model.config
    assert {part._attn_implementation for part in (config, config.vision_config)} == {used}  # noqa: SLF001


def test_layers_on_the_disk_give_the_same_rows(folder: Path, tmp_path: Path) -> None:
    placed = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "lm_head"), "cpu")
    placed |= dict.fromkeys(("model.layers.1", "model.layers.2", "model.vision"), "disk")
    spread = load_adapter(folder, device_map=placed, offload_folder=tmp_path / "offloaded")
    torch.testing.assert_close(rows(spread), rows(load_adapter(folder, device="cpu")))


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    adapter = cogvlm()
    adapter.model.save_pretrained(tmp_path)
    adapter.processor.save_pretrained(tmp_path)
    again: Any = load_adapter(tmp_path, device="cpu")
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "cogvlm"
    assert again.processor.cells == adapter.processor.cells
    torch.testing.assert_close(rows(again), rows(adapter))
