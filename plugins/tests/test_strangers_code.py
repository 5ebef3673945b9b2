"""No file that the library reads can make code run, send a token, or set an argument of a loader."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from vlm_adapters import (
    AdapterError,
    GroundedVLM,
    Prompt,
    Recipe,
    evaluate,
    load_adapter,
    load_grounder,
    open_dataset,
    train,
)
from vlm_adapters.data.config import DATASET_CONFIGS
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.evaluation import EvaluationSettings, open_for_protocol, read_records
from vlm_adapters.heads import HeadProfile
from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters.registry.load_options import NEVER_FROM_A_FILE
from vlm_adapters.training import CachedSamples, RunState
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.recipe import recipe_names

MODEL = "tiny-llava"
CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForImageTextToText",
    "AutoProcessor",
    "AutoTokenizer",
    "AutoImageProcessor",
)
PLANTED: dict[str, Any] = {
    **dict.fromkeys(sorted(NEVER_FROM_A_FILE), True),
    "auto_map": dict.fromkeys(CLASSES, "evil.Evil"),
    "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"},
    "custom_generate": "evil",
    "_attn_implementation": "evil/kernel",
    "attn_implementation": "evil/kernel",
    "processor_class": "Evil",
    "tokenizer_class": "Evil",
    "image_processor_type": "Evil",
    "architectures": ["Evil"],
}
EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Evil: ...\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of an embedded model with an importable `evil.py`; at the end is checked that it never ran."""
    model = tmp_path / "model"
    shutil.copytree(embedded_checkpoints()[MODEL], model)
    (model / "evil.py").write_text(EVIL, encoding="utf-8")
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(EVIL, encoding="utf-8")
    config = json.loads((model / "decoder" / "config.json").read_text(encoding="utf-8"))
    config["backbone"] |= {"checkpoint": str(model), "revision": None}
    (model / "decoder" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.syspath_prepend(str(model))
    yield model
    assert not list(model.rglob("ran"))
    assert "evil" not in sys.modules


def planted(content: Any) -> Iterator[tuple[str, Any]]:
    """The content with every keyword planted in every object of it, one at a time."""
    whole = json.dumps(content)
    for keys in [path for path, value in objects(content) if isinstance(value, dict)]:
        for keyword, value in PLANTED.items():
            changed = json.loads(whole)
            place = changed
            for key in keys:
                place = place[key]
            place[keyword] = value
            yield f"{'.'.join(map(str, keys))}: {keyword}", changed


def objects(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, content
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(entries)[:5]:
        if isinstance(value, dict | list):
            yield from objects(value, (*path, key))


def each_refused_or_harmless(path: Path, read: Callable[[], object]) -> list[str]:
    """Plant in a JSON or YAML file; what was taken is given back."""
    text = path.read_text(encoding="utf-8")
    is_yaml, taken = path.suffix == ".yaml", []
    for name, changed in planted(yaml.safe_load(text) if is_yaml else json.loads(text)):
        path.write_text(yaml.safe_dump(changed) if is_yaml else json.dumps(changed), encoding="utf-8")
        try:
            read()
        except AdapterError:
            continue
        taken.append(name)
    path.write_text(text, encoding="utf-8")
    return taken


def ground(model: Path) -> object:
    image = Image.new("RGB", (64, 64), "red")
    adapter = load_adapter(model, device="cpu")
    adapter.extract(adapter.preprocess([Prompt.describe(image, "a red circle", ["a red circle"])]))
    return adapter.generate(Prompt.chat(Prompt.describe(image, "x").messages[:1]), max_new_tokens=1)  # type: ignore[attr-defined]


def test_no_argument_of_the_loader_may_stand_in_a_file() -> None:
    parameters = inspect.signature(load_adapter).parameters.values()
    assert {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} <= NEVER_FROM_A_FILE


def test_a_decoders_config_takes_none(folder: Path) -> None:
    taken = each_refused_or_harmless(
        folder / "decoder" / "config.json", lambda: GroundedVLM.from_pretrained(folder, device="cpu")
    )
    assert {name for name in taken if not name.endswith((": revision", ": refiner"))} == set()


@pytest.mark.parametrize(
    "name", ["config.json", "processor_config.json", "tokenizer_config.json", "generation_config.json"]
)
def test_a_checkpoints_files_run_nothing(folder: Path, name: str) -> None:
    each_refused_or_harmless(folder / name, lambda: ground(folder))


def test_a_checkpoint_of_an_unknown_type_runs_nothing(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "evil", "auto_map": PLANTED["auto_map"], "trust_remote_code": True}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(AdapterError):
        load_adapter(folder)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_lora_runs_nothing(folder: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    peft = pytest.importorskip("peft")
    adapter: Any = load_adapter(folder, device="cpu")
    settings = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj")
    peft.get_peft_model(adapter.model, settings).save_pretrained(lora)
    path = lora / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(folder)}
    path.write_text(json.dumps(content), encoding="utf-8")
    shutil.copy(folder / "evil.py", lora)
    each_refused_or_harmless(path, lambda: load_adapter(lora, device="cpu"))
    assert not (lora / "ran").exists()


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_takes_typed_keys_alone(tmp_path: Path, name: str) -> None:
    content = Recipe.read(name).model_dump(mode="json") | {"options": {"min_pixels": 3136}}
    content["train"] = [{"kind": "scenes", "count": 2}]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    Recipe.read(str(path))
    taken = {name.removeprefix(": ") for name in each_refused_or_harmless(path, lambda: Recipe.read(str(path)))}
    in_data = {name for name in taken if name.startswith("train.")}  # refused where the data are opened
    assert taken - in_data <= set(Recipe.model_fields)


def test_a_data_file_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"kind": "scenes", "count": 2}), encoding="utf-8")
    open_dataset(path)
    assert each_refused_or_harmless(path, lambda: open_dataset(path)) == []


def test_a_head_profile_takes_none(folder: Path) -> None:
    path = folder / "head_profile.json"
    taken = each_refused_or_harmless(path, lambda: HeadProfile.read(path))
    # options of a profile are compared with those of the adapter, and loaded from by nothing
    found = {name.removeprefix("backbone.options: ") for name in taken if not name.endswith(": revision")}
    assert not found & NEVER_FROM_A_FILE
    assert not any(": " in name for name in found)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training run with its cache, and an evaluation."""
    changes = ["train=scenes:count=2", "validation=scenes:count=1,seed=5", "epochs=1", "decoder.base_width=4"]
    train(Recipe.read("scenes", [*changes, f"model={MODEL}", f"cache={tmp_path / 'cache'}"]), tmp_path / "run")
    scenes = open_for_protocol("scenes:count=2,seed=4", "packed")
    evaluate(load_grounder(MODEL), scenes, EvaluationSettings(protocol="packed"), tmp_path / "evaluation")
    return tmp_path


def test_the_files_of_a_run_take_none(run: Path) -> None:
    (cache, *_) = (run / "cache").iterdir()
    (manifest, *_) = cache.glob("shard-*.json")
    doors: dict[Path, Callable[[], object]] = {
        run / "run" / "best" / "state.json": lambda: RunState.read(run / "run" / "best"),
        run / "run" / "best" / "config.json": lambda: GroundedVLM.from_pretrained(run / "run" / "best"),
        cache / "index.json": lambda: CachedSamples(cache),
        manifest: lambda: CachedSamples(cache).read([0]),
    }
    for path, read in doors.items():
        read()
        taken = each_refused_or_harmless(path, read)
        assert {name for name in taken if not name.endswith((": revision", ": refiner"))} == set(), path


def test_the_records_of_an_evaluation_take_none(run: Path) -> None:
    path = run / "evaluation" / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    read_records(path)
    for name, changed in planted(json.loads(lines[-1])):
        path.write_text("\n".join([*lines[:-1], json.dumps(changed)]) + "\n", encoding="utf-8")
        with pytest.raises(AdapterError):
            raise AssertionError(name, read_records(path))


@pytest.mark.parametrize("kind", sorted(DATASET_CONFIGS))
def test_a_data_file_of_any_kind_takes_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.yaml"
    for keyword, value in PLANTED.items():
        path.write_text(yaml.safe_dump({"kind": kind, keyword: value}), encoding="utf-8")
        with pytest.raises(AdapterError, match=re.escape(keyword)):
            raise AssertionError(keyword, open_dataset(path))


def test_a_published_config_takes_none(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(EVIL, encoding="utf-8")
    (plugin,) = (Path(__file__).parents[1] / "qwen").glob("vlm_adapters_qwen/published")
    name = "Qwen/Qwen2-VL-2B-Instruct"
    path = tmp_path / "Qwen--Qwen2-VL-2B-Instruct.json"
    content = json.loads((plugin / path.name).read_text(encoding="utf-8"))
    for _, changed in planted(content):
        path.write_text(json.dumps(changed), encoding="utf-8")
        with contextlib.suppress(AdapterError):
            PublishedCheckpoint.read(tmp_path, name)
    assert "evil" not in sys.modules


def test_a_cache_takes_none(tmp_path: Path) -> None:
    fingerprint = CacheFingerprint.of(load_adapter(MODEL, device="cpu"), "scenes:count=1", FeatureRequest())
    fingerprint.write(tmp_path)
    (path,) = tmp_path.iterdir()
    taken = each_refused_or_harmless(path, lambda: CacheFingerprint.read(tmp_path))
    assert {name for name in taken if not name.endswith((": revision", ": dtype"))} == set()
