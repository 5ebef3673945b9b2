"""Every way in which people load a model gives the numbers of the plain way: `docs/loading.md` names these tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import torch.distributed
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import AutoModelForImageTextToText

from vlm_adapters import GridRequest, GroundedVLM, Prompt, TransformersBackbone, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import OptionError
from vlm_adapters.hf import pretrained as pretrained_module
from vlm_adapters.registry.versions import is_older

NAMES = sorted(embedded_checkpoints())
SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]
OFFLOADS = pytest.mark.skipif(
    is_older("accelerate", "1.15"),
    reason="accelerate before 1.15 brings wrong weights from the disk",
)
REQUEST = GridRequest(hidden_layers=[1], phrase_hidden_layers=[2])


def loaded(name: str | Path, **options: Any) -> TransformersBackbone:
    adapter = load_adapter(name, **{"device": "cpu", **options})
    assert isinstance(adapter, TransformersBackbone)
    return adapter


def outputs(adapter: TransformersBackbone) -> dict[str, Tensor]:
    """Maps, hidden states and logits of one scene, and the tokens of the answer to its question."""
    inputs = adapter.preprocess([SCENE.prompt])
    (grids,) = adapter.extract(inputs, REQUEST)[0]
    with torch.no_grad():
        output = adapter.model(**inputs.tensors, return_dict=True)
    answer = adapter.generate(Prompt(SCENE.prompt.messages[:1]), max_new_tokens=8)
    return {
        "attention": grids.attention,
        "hidden": grids.hidden,
        "phrases": torch.cat(grids.phrase_hidden, dim=1),
        "logits": output.logits,
        "answer": torch.tensor(answer.ids),
    }


@cache
def plain(name: str) -> dict[str, Tensor]:
    return outputs(loaded(name))


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest of all; values that are not there differ from all."""
    assert not any(tensor.is_meta for tensor in found.values())
    assert found["answer"].tolist() == expected["answer"].tolist()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


def parts(name: str, of_language_model: str, of_others: str) -> dict[str, str]:
    """A device map: the language model here, all else there."""
    model = loaded(name).model
    inner = [child for child, _ in model.model.named_children()]
    assert "language_model" in inner
    places = {f"model.{child}": of_language_model if child == "language_model" else of_others for child in inner}
    return places | {"lm_head": of_language_model}


@pytest.mark.parametrize("name", NAMES)
def test_a_device_map_gives_the_same(name: str, subtests: pytest.Subtests) -> None:
    device_maps: list[Any] = ["cpu", "auto", {"": "cpu"}, torch.device("cpu")]
    for device_map in device_maps:
        with subtests.test(device_map=device_map):
            assert difference(outputs(loaded(name, device="auto", device_map=device_map)), plain(name)) == 0


@OFFLOADS
@pytest.mark.parametrize("name", NAMES)
def test_weights_that_a_map_leaves_on_the_disk_give_the_same(
    name: str, subtests: pytest.Subtests, tmp_path: Path
) -> None:
    for places in [("disk", "cpu"), ("cpu", "disk"), ("disk", "disk")]:
        with subtests.test(places=places):
            folder = tmp_path / "-".join(places)
            adapter = loaded(name, device="auto", device_map=parts(name, *places), offload_folder=folder)
            assert any(weight.is_meta for weight in adapter.model.parameters())
            assert difference(outputs(adapter), plain(name)) < 1e-6


@OFFLOADS
@pytest.mark.parametrize("name", NAMES)
def test_little_memory_leaves_weights_on_the_disk_and_gives_the_same(name: str, tmp_path: Path) -> None:
    adapter = loaded(name, device="auto", device_map="auto", max_memory={"cpu": "500KB"}, offload_folder=tmp_path)
    assert any(weight.is_meta for weight in adapter.model.parameters())
    assert difference(outputs(adapter), plain(name)) < 1e-6


OFFLOADING: dict[str, Callable[[Any, Path], object]] = {
    "cpu_offload": lambda model, _: accelerate.cpu_offload(model, execution_device=torch.device("cpu")),
    "disk_offload": lambda model, path: accelerate.disk_offload(model, path, execution_device=torch.device("cpu")),
}


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_accelerate_brings_give_the_same(name: str, subtests: pytest.Subtests, tmp_path: Path) -> None:
    for kind, offload in OFFLOADING.items():
        with subtests.test(kind):
            adapter = loaded(name)
            offload(adapter.model, tmp_path / kind)
            assert all(weight.is_meta for weight in adapter.model.parameters())
            assert difference(outputs(adapter), plain(name)) < 1e-6


@OFFLOADS
def test_a_decoder_goes_where_an_offloaded_backbone_computes(tmp_path: Path) -> None:
    device_map = parts("tiny-qwen2_5_vl", "disk", "cpu")
    vlm = GroundedVLM.from_pretrained("tiny-qwen2_5_vl", device_map=device_map, offload_folder=tmp_path)
    expected = GroundedVLM.from_pretrained("tiny-qwen2_5_vl", device="cpu")
    found, right = (each.ground_all([SCENE.prompt])[0] for each in (vlm, expected))
    assert [phrase.box for phrase in found.phrases] == [phrase.box for phrase in right.phrases]


@pytest.mark.parametrize("device_map", [{"": "disk"}, {"model": "cpu", "lm_head": "disk"}])
def test_an_accelerate_that_brings_wrong_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, device_map: dict[str, str], tmp_path: Path
) -> None:
    monkeypatch.setattr(
        pretrained_module, "is_older", lambda package, release: (package, release) == ("accelerate", "1.15")
    )
    with pytest.raises(OptionError, match=r"accelerate \S+ cannot load .* Install accelerate>=1\.15, or place no"):
        load_adapter("tiny-llava", device_map=device_map, offload_folder=tmp_path)


@OFFLOADS
def test_an_accelerate_that_brings_wrong_weights_is_refused_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        pretrained_module, "is_older", lambda package, release: (package, release) == ("accelerate", "1.15")
    )
    with pytest.raises(OptionError, match=r"accelerate \S+ cannot load"):
        load_adapter("tiny-llava", device_map="auto", max_memory={"cpu": "500KB"}, offload_folder=tmp_path)


@pytest.mark.parametrize("options", [{"device_map": {"": "cpu"}}, {"quantization_config": object()}])
def test_a_mapped_or_quantised_model_is_not_moved(monkeypatch: pytest.MonkeyPatch, options: dict[str, object]) -> None:
    name = "tiny-llava"
    model = loaded(name).model

    def load(*_: object, **given: Any) -> tuple[object, dict[str, list[str]]]:
        assert given["device_map"] == {"": "cpu"} or given["device_map"] == {"": torch.device("cpu")}
        return model, {"missing_keys": []}

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", load)
    monkeypatch.setattr(type(model), "to", lambda *_: pytest.fail("the model was moved"))
    assert loaded(name, device="auto", **options).model is model


def test_options_that_cannot_be_used_are_reported(subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"device": "cpu", "device_map": "auto"},
            "Both device='cpu' and device_map place the model. Give one of them.",
        ),
        ({"max_memory": {"cpu": "1GB"}}, "max_memory needs a device_map. Give one, such as device_map='auto'."),
        ({"device_map": {"": "cuda:9"}}, "The device 'cuda:9' is not available; found "),
        ({"device_map": "fastest"}, "Unknown device 'fastest'. Use auto, cpu, cuda"),
        ({"quantization_config": "int4"}, "Unknown quantization 'int4'. Use nf4, int8, or a quantization config"),
        ({"torch_dtype": "bfloat16"}, "LlavaAdapter has no option torch_dtype. Its options are: none; every adapter"),
        ({"torch_dtype": "bfloat16"}, "Did you mean dtype?"),
        ({"load_in_4bit": True}, "Did you mean quantization_config='nf4'?"),
        ({"atn_implementation": "sdpa"}, "Did you mean attn_implementation?"),
        ({"attn_implementation": "flash_attention_9"}, "cannot be loaded with attn_implementation=flash_attention_9"),
        ({"attn_implementation": "flash_attention_9"}, "Leave attn_implementation out, or install what it needs."),
    ]
    for options, message in cases:
        with subtests.test(options=options):
            with pytest.raises(OptionError) as caught:
                load_adapter("tiny-llava", **options)
            assert message in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "options", "message"),
    [
        (
            "accelerate",
            {"device_map": "auto"},
            "need accelerate, which is not installed: pip install 'vlm-adapters[train]'.",
        ),
        (
            "bitsandbytes",
            {"quantization_config": "nf4"},
            "'nf4' needs bitsandbytes, which is not installed: pip install bits",
        ),
    ],
)
def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, missing: str, options: dict[str, str], message: str
) -> None:
    real = pretrained_module.find_spec
    monkeypatch.setattr(pretrained_module, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(OptionError) as caught:
        load_adapter("tiny-llava", **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_kernel_is_the_one_asked_for(kernel: str) -> None:
    adapter = loaded("tiny-qwen2_5_vl", attn_implementation=kernel)
    assert adapter.model.config.get_text_config()._attn_implementation == kernel  # noqa: SLF001 - there is no other reader
    assert difference(outputs(adapter), plain("tiny-qwen2_5_vl")) < 1e-4


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A cache of the hub's files with the repository acme/tiny, its model in the folder `deep`."""
    repository = tmp_path / "hub" / "models--acme--tiny"
    ignored = shutil.ignore_patterns("decoder", "*.md")
    shutil.copytree(embedded_checkpoints()["tiny-llava"], repository / "snapshots" / "abc" / "deep", ignore=ignored)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    return tmp_path / "hub"


def test_a_repository_is_loaded_from_its_cache_and_subfolder_without_the_hub(hub: Path) -> None:
    adapter = loaded("acme/tiny", cache_dir=hub, local_files_only=True, subfolder="deep", token="hf_none")  # noqa: S106
    assert adapter.info.checkpoint == "acme/tiny"
    assert difference(outputs(adapter), plain("tiny-llava")) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_model_gives_the_same(name: str) -> None:
    adapter = loaded(name)
    adapter.model = torch.compile(adapter.model, backend="eager")
    assert difference(outputs(adapter), plain(name)) == 0
    built = type(adapter)(torch.compile(loaded(name).model, backend="eager"), adapter.processor)
    assert difference(outputs(built), plain(name)) == 0


def test_a_model_that_was_compiled_in_place_gives_the_same() -> None:
    adapter = loaded("tiny-llava")
    adapter.model.compile(backend="eager")
    assert difference(outputs(adapter), plain("tiny-llava")) == 0


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrapper", [DistributedDataParallel, DataParallel])
def test_a_data_parallel_wrapper_is_refused_with_what_to_give(wrapper: type) -> None:
    adapter = loaded("tiny-llava")
    wrapped = wrapper(adapter.model.requires_grad_())
    message = f"A {wrapper.__name__} sums gradients whenever it is called, .* Give its .module"
    with pytest.raises(OptionError, match=message):
        adapter.model = wrapped
    with pytest.raises(OptionError, match=message):
        type(adapter)(wrapped, adapter.processor)
    adapter.model = wrapped.module
    assert difference(outputs(adapter), plain("tiny-llava")) == 0


def test_a_flattened_model_is_refused_with_what_to_do() -> None:
    wrapped = FullyShardedDataParallel.__new__(FullyShardedDataParallel)  # it can be built on an accelerator only
    with pytest.raises(OptionError, match=r"FullyShardedDataParallel flattens the weights .*fully_shard"):
        loaded("tiny-llava").model = wrapped


@pytest.mark.usefixtures("process_group")
def test_layers_and_base_that_were_sharded_in_place_give_the_same() -> None:
    adapter = loaded("tiny-llava")
    mesh = init_device_mesh("cpu", (1,))
    for layer in adapter.model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(adapter.model.base_model, mesh=mesh)
    inputs = adapter.preprocess([SCENE.prompt])
    (grids,) = adapter.extract(inputs, REQUEST)[0]
    assert torch.equal(grids.attention, plain("tiny-llava")["attention"])


@pytest.mark.usefixtures("process_group")
def test_a_model_that_was_sharded_as_one_is_refused_with_what_to_shard() -> None:
    adapter = loaded("tiny-llava")
    fully_shard(adapter.model, mesh=init_device_mesh("cpu", (1,)))
    message = r"called on the LlavaForConditionalGeneration itself, .* Shard the layers, and then model\.base_model"
    with pytest.raises(OptionError, match=message):
        adapter.preprocess([SCENE.prompt])
    with pytest.raises(OptionError, match=message):
        type(adapter)(adapter.model, adapter.processor)


def test_what_is_not_a_model_of_transformers_is_refused() -> None:
    with pytest.raises(OptionError, match=r"A Linear is not a model of transformers\. Give a PreTrainedModel"):
        loaded("tiny-llava").model = torch.nn.Linear(2, 2)
