"""Models with LoRA in their layers: wrapped by peft, or as a folder that training saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlm_adapters import GridRequest, TransformersBackbone, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, OptionError
from vlm_adapters.hf import lora as lora_module
from vlm_adapters.registry.versions import is_older

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's

NAMES = sorted(embedded_checkpoints())
SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]


def loaded(name: str | Path, **options: Any) -> TransformersBackbone:
    adapter = load_adapter(name, device="cpu", **options)
    assert isinstance(adapter, TransformersBackbone)
    return adapter


def maps(adapter: TransformersBackbone) -> Tensor:
    return adapter.extract(adapter.preprocess([SCENE.prompt]), GridRequest())[0][0].attention


def with_lora(adapter: TransformersBackbone, *, changes: bool, **options: Any) -> Any:
    """The model within LoRA; one that changes it has a matrix B that is not 0."""
    torch.manual_seed(0)
    targets = r".*language_model.*\.(q|k|v)_proj"
    config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=not changes, **options)
    return peft.get_peft_model(adapter.model, config)


@pytest.mark.parametrize("name", NAMES)
def test_a_lora_that_changes_nothing_gives_the_same_to_the_bit(name: str) -> None:
    adapter = loaded(name)
    expected = maps(adapter)
    built = type(adapter)(with_lora(adapter, changes=False), adapter.processor)
    assert torch.equal(maps(built), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_lora_gives_what_its_merged_weights_give(name: str) -> None:
    adapter = loaded(name)
    plain = maps(adapter)
    wrapped = with_lora(adapter, changes=True)
    adapter.model = wrapped
    found = maps(adapter)
    assert float((found - plain).abs().max()) > 1e-2
    with wrapped.disable_adapter():
        assert torch.equal(maps(adapter), plain)
    adapter.model = wrapped.merge_and_unload()
    assert float((found - maps(adapter)).abs().max()) < 1e-5


def test_a_lora_set_as_the_model_can_still_be_trained() -> None:
    adapter = loaded("tiny-llava")
    adapter.model = with_lora(adapter, changes=True)
    trained = [name for name, weight in adapter.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize("mixed", [False, True])
def test_other_wrappers_of_peft_are_seen_through(*, mixed: bool) -> None:
    adapter = loaded("tiny-llava")
    model, expected = adapter.model, maps(adapter)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    adapter.model = peft.get_peft_model(model, config, mixed=True) if mixed else peft.LoraModel(model, config, "mine")
    assert adapter.model is model
    assert torch.equal(maps(adapter), expected)


def test_tokens_before_the_prompt_are_refused() -> None:
    adapter = loaded("tiny-llava")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=4, token_dim=128)
    wrapped = peft.get_peft_model(adapter.model, config)
    with pytest.raises(OptionError, match=r"of the kind PROMPT_TUNING puts tokens .* Use LoRA or another kind"):
        adapter.model = wrapped


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Tensor]:
    """A folder with a LoRA of tiny-llava, and its maps."""
    adapter = loaded("tiny-llava")
    adapter.model = wrapped = with_lora(adapter, changes=True)
    wrapped.save_pretrained(tmp_path / "lora")
    return tmp_path / "lora", maps(adapter)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["multi_modal_projector"]}], ids=str)
def test_a_folder_of_a_lora_loads_its_base_and_itself(tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = loaded("tiny-llava")
    adapter.model = wrapped = with_lora(adapter, changes=True, **options)
    wrapped.save_pretrained(tmp_path / "lora")
    assert not (tmp_path / "lora" / "config.json").exists()
    found = loaded(tmp_path / "lora")
    assert torch.equal(maps(found), maps(adapter))
    assert (found.info.checkpoint, found.info.revision) == (str(tmp_path / "lora"), None)
    assert not any(weight.requires_grad for weight in found.model.parameters())
    assert not found.model.training


def test_a_folder_of_a_lora_is_loaded_by_the_class_itself_as_well(saved: tuple[Path, Tensor]) -> None:
    folder, expected = saved
    found = type(loaded("tiny-llava")).from_pretrained(folder, device="cpu")
    assert torch.equal(maps(found), expected)


def weights_changed(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def without_a_matrix(folder: Path) -> None:
    weights_changed(folder, lambda weights: dict(sorted(weights.items())[1:]))


def with_one_too_many(folder: Path) -> None:
    weights_changed(folder, lambda weights: weights | {"base_model.model.nowhere.lora_A.weight": torch.zeros(2, 2)})


def of_another_size(folder: Path) -> None:
    weights_changed(folder, lambda weights: {name: torch.zeros(2, 2) for name in weights})


def as_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def of_an_unknown_kind(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"peft_type": "MAGIC"}), encoding="utf-8")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a matrix missing": (without_a_matrix, "does not fit .*: 1 of its weights are missing or do not belong to it"),
    "one too many": (with_one_too_many, r"does not fit .* among them base_model\.model\.nowhere"),
    "another size": (of_another_size, "cannot be loaded into .*size mismatch"),
    "a pickle": (as_a_pickle, "holds a LoRA without adapter_model.safetensors. Save it again with peft"),
    "an unknown kind": (of_an_unknown_kind, "cannot be loaded into .*MAGIC"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_half_a_lora_is_an_error_and_never_a_bare_base(
    saved: tuple[Path, Tensor], change: Callable[[Path], None], message: str
) -> None:
    folder, _ = saved
    change(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_adapter(folder, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(is_older("accelerate", "1.15"), reason="it is refused before")
def test_a_lora_over_offloaded_weights_is_refused(saved: tuple[Path, Tensor], tmp_path: Path) -> None:
    folder, _ = saved
    with pytest.raises(OptionError, match=r"weights of its base are offloaded.*merge it into the base first"):
        load_adapter(folder, device_map={"": "disk"}, offload_folder=tmp_path / "offloaded")


def test_without_peft_a_folder_of_a_lora_says_what_to_install(
    saved: tuple[Path, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = saved
    monkeypatch.setattr(lora_module, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match=r"holds a LoRA, which needs peft: pip install peft\."):
        load_adapter(folder, device="cpu")


def test_a_base_that_moved_can_be_given(saved: tuple[Path, Tensor], tmp_path: Path) -> None:
    folder, expected = saved
    moved = Path(shutil.copytree(embedded_checkpoints()["tiny-llava"], tmp_path / "moved"))
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8")) | {"base_model_name_or_path": str(tmp_path / "gone")}
    path.write_text(json.dumps(config), encoding="utf-8")
    adapter = loaded(moved)
    adapter.model = peft.PeftModel.from_pretrained(adapter.model, folder)
    assert torch.equal(maps(adapter), expected)
