"""From a name to an adapter: embedded checkpoints, directories, hub ids, and every way in which there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, cast
from unittest.mock import Mock

import pytest
from huggingface_hub import constants, errors

from tests.registry.conftest import ADAPTER, checkpoint_in
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, OptionError, UnknownAdapterError
from vlm_adapters.registry import checkpoints
from vlm_adapters.registry.checkpoints import Checkpoint, find_checkpoint
from vlm_adapters.registry.loading import load_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site


def test_a_directory_is_loaded_with_everything_passed_on(toy: Path) -> None:
    given = {"device": "cpu", "dtype": "float32", "revision": None, "trust_remote_code": True, "min_pixels": 3}
    assert load_adapter(toy, **given) == (str(toy), given)  # type: ignore[arg-type, comparison-overlap]


TOKEN = "hf_secret"

EVERY_KEYWORD = {
    "attn_implementation": "eager",
    "device_map": 0,
    "max_memory": {"cpu": "1GB"},
    "offload_folder": "offloaded",
    "quantization_config": "nf4",
    "token": False,
    "cache_dir": "cache",
    "local_files_only": True,
}


def test_a_keyword_of_loading_reaches_the_class_where_it_is_given(toy: Path) -> None:
    for keyword, value in EVERY_KEYWORD.items():
        _, options = cast("tuple[str, dict[str, object]]", load_adapter(toy, **{keyword: value}))  # type: ignore[arg-type]
        assert options.pop(keyword) == value, keyword
        assert set(options) == {"device", "dtype", "revision", "trust_remote_code"}, keyword


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", "bfloat16"), ("fp16", "float16"), ("float32", "float32")])
def test_a_class_gets_the_name_that_torch_has_for_a_precision(toy: Path, dtype: str, expected: str) -> None:
    _, options = cast("tuple[str, dict[str, object]]", load_adapter(toy, dtype=dtype))
    assert options["dtype"] == expected


def test_a_class_that_takes_no_more_than_the_documented_is_not_given_more(toy: Path, site: Site) -> None:
    site.add_module(
        "toy_adapter",
        ADAPTER.replace("**options", "*, device, dtype, revision, trust_remote_code").replace(
            "checkpoint, options", "device, dtype"
        ),
    )
    sys.modules.pop("toy_adapter", None)
    assert load_adapter(toy) == ("auto", "auto")  # type: ignore[comparison-overlap]
    with pytest.raises(OptionError) as caught:
        load_adapter(toy, device_map="auto")
    assert str(caught.value) == "ToyAdapter.from_pretrained: got an unexpected keyword argument 'device_map'."


def test_a_subfolder_of_a_directory_is_the_checkpoint(toy: Path, tmp_path: Path) -> None:
    assert toy
    inner = checkpoint_in(tmp_path / "outer" / "inner")
    location, options = cast("tuple[str, dict[str, object]]", load_adapter(tmp_path / "outer", subfolder="inner"))
    assert location == str(inner)
    assert "subfolder" not in options


def test_the_hub_is_asked_as_the_caller_says(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def download(_: str, name: str, **options: object) -> str:
        asked.append(options)
        return str(toy / name)

    monkeypatch.setattr(checkpoints, "hf_hub_download", download)
    _, options = cast(
        "tuple[str, dict[str, object]]",
        load_adapter("acme/toy", revision="v1", token=TOKEN, cache_dir="here", subfolder="deep"),
    )
    assert asked == [
        {"revision": "v1", "subfolder": "deep", "token": TOKEN, "cache_dir": "here", "local_files_only": True}
    ]
    assert (options["token"], options["cache_dir"], options["subfolder"]) == (TOKEN, "here", "deep")


def test_local_files_only_is_honoured_and_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="local_files_only is set, so the hub was not contacted") as caught:
        load_adapter("acme/toy", cache_dir=tmp_path, local_files_only=True, token=TOKEN)
    assert TOKEN not in str(caught.value)


def lora_in(directory: Path, content: str) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text(content, encoding="utf-8")
    return directory


def test_a_lora_folder_is_loaded_by_the_model_type_of_its_base(toy: Path, tmp_path: Path) -> None:
    for base in (str(toy), "tiny-toy"):
        lora = lora_in(tmp_path / f"lora-{len(base)}", json.dumps({"base_model_name_or_path": base}))
        location, _ = cast("tuple[str, object]", load_adapter(lora))
        assert location == str(lora)


def test_a_folder_with_a_model_and_a_lora_is_a_model(toy: Path, tmp_path: Path) -> None:
    assert toy
    both = checkpoint_in(tmp_path / "both")
    (both / "adapter_config.json").write_text('{"base_model_name_or_path": "nowhere"}', encoding="utf-8")
    assert find_checkpoint(both) == Checkpoint(str(both), "toy")


def test_a_lora_without_its_base_says_what_is_wrong(subtests: pytest.Subtests, toy: Path, tmp_path: Path) -> None:
    cases = [
        ('{"base_model_name_or_path": "/gone"}', "a LoRA over '/gone', which cannot be found: No checkpoint '/gone'"),
        ('{"base_model_name_or_path": "/gone"}', r"adapter\.model = peft\.PeftModel\.from_pretrained\(adapter\.model"),
        ("{}", "adapter_config.json has no base_model_name_or_path, the model that the LoRA belongs to"),
        ('{"base_model_name_or_path": null}', "has no base_model_name_or_path"),
        ("[]", "has no base_model_name_or_path"),
        ("{", r"adapter_config\.json cannot be read as JSON"),
    ]
    assert toy
    for content, reason in cases:
        with subtests.test(content=content, reason=reason), pytest.raises(CheckpointError, match=reason):
            load_adapter(lora_in(tmp_path / f"lora-{len(list(tmp_path.iterdir()))}", content))


def test_a_lora_cannot_be_the_base_of_another(toy: Path, tmp_path: Path) -> None:
    inner = lora_in(tmp_path / "inner", json.dumps({"base_model_name_or_path": str(toy)}))
    outer = lora_in(tmp_path / "outer", json.dumps({"base_model_name_or_path": str(inner)}))
    with pytest.raises(CheckpointError, match=r"which cannot be found: No config\.json in .*inner"):
        load_adapter(outer)


def test_a_directory_has_no_revision(toy: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, which has no revision 'v1'"):
        load_adapter(toy, revision="v1")


def test_an_embedded_name_is_its_directory(toy: Path) -> None:
    asked = {"device": "auto", "dtype": "auto", "revision": None, "trust_remote_code": False}
    assert load_adapter("tiny-toy") == (str(toy), asked)  # type: ignore[comparison-overlap]


def test_the_embedded_checkpoints_are_directories_with_a_config() -> None:
    for name, directory in embedded_checkpoints().items():
        assert directory.name == name
        assert json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"]


def test_a_checkpoint_without_an_adapter_says_so(toy: Path, tmp_path: Path) -> None:
    assert toy
    other = checkpoint_in(tmp_path / "other", '{"model_type": "toyota"}')
    with pytest.raises(UnknownAdapterError, match=r"model type 'toyota'\. Did you mean toy\?"):
        load_adapter(other)


def test_a_wrong_config_says_what_is_wrong(subtests: pytest.Subtests, tmp_path: Path) -> None:
    cases: list[tuple[bytes | None, str]] = [
        (b"{", "config.json cannot be read as JSON: .* Download the checkpoint again"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[]", "has no model_type, by which the adapter is chosen"),
        (b"{}", "has no model_type"),
        (b'{"model_type": 3}', "has no model_type"),
        (b'{"model_type": ""}', "has no model_type"),
        (None, "No config.json in .* Give the directory of a checkpoint"),
    ]
    for content, reason in cases:
        with subtests.test(content=content):
            (tmp_path / "config.json").unlink(missing_ok=True)
            if content is not None:
                (tmp_path / "config.json").write_bytes(content)
            with pytest.raises(CheckpointError, match=reason):
                find_checkpoint(tmp_path)


BY_CLASS = """
from vlm_adapters import AdapterSpec, hookimpl

@hookimpl
def adapter_specs():
    return [AdapterSpec("toy", "toy_adapter:ToyAdapter", architectures=("ToyForCausalLM",))]
"""


def test_a_config_without_a_model_type_is_found_by_its_class(site: Site, tmp_path: Path) -> None:
    site.add_plugin("acme-toy", BY_CLASS)
    named = checkpoint_in(tmp_path / "named", '{"architectures": ["ToyForCausalLM"]}')
    assert find_checkpoint(named) == Checkpoint(str(named), "toy")
    other = checkpoint_in(tmp_path / "typed", '{"model_type": "other", "architectures": ["ToyForCausalLM"]}')
    assert find_checkpoint(other).model_type == "other"


@pytest.mark.parametrize("names", ['["OtherForCausalLM"]', '"ToyForCausalLM"', "[[]]", "null"])
def test_a_class_that_no_plugin_names_is_an_error(site: Site, tmp_path: Path, names: str) -> None:
    site.add_plugin("acme-toy", BY_CLASS)
    folder = checkpoint_in(tmp_path / "folder", f'{{"architectures": {names}}}')
    with pytest.raises(CheckpointError, match=r"has no model_type, .* and names no class that a plugin knows"):
        find_checkpoint(folder)


def test_the_name_of_an_adapter_is_not_a_checkpoint(toy: Path) -> None:
    assert toy
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("toy")
    assert str(caught.value) == (
        "'toy' is the name of an adapter, and a checkpoint is needed. It supports: acme/toy-1b. Embedded: tiny-toy."
    )


def test_what_cannot_be_a_checkpoint_says_what_can(subtests: pytest.Subtests, toy: Path) -> None:
    cases = ["", "nowhere", "./acme/toy", "/no/such/place", "a b/c", "x" * 5000, "a\0b"]
    assert toy
    for name in cases:
        with (
            subtests.test(name=name),
            pytest.raises(
                CheckpointError, match=r"neither a local directory nor a hub id \(owner/name.*Embedded: tiny-toy\."
            ),
        ):
            find_checkpoint(name)


def test_a_hub_id_on_disk_needs_no_network(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert toy
    repository = tmp_path / "hub" / "models--acme--toy"
    checkpoint_in(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_checkpoint("acme/toy") == Checkpoint("acme/toy", "toy")


def test_every_refusal_of_the_hub_is_one_error(subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[type[Exception], str]] = [
        (errors.LocalEntryNotFoundError, "not in the local cache, and the hub cannot be reached"),
        (errors.GatedRepoError, "the repository is gated; accept its terms"),
        (errors.RepositoryNotFoundError, "there is no such repository, or it is private"),
        (errors.RevisionNotFoundError, "the repository has no revision 'v1'"),
        (errors.RemoteEntryNotFoundError, "the repository has no config.json"),
        (errors.HFValidationError, "HFValidationError:"),
        (RuntimeError, "RuntimeError:"),
    ]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for kind, reason in cases:
        with subtests.test(kind=kind):
            error = kind.__new__(kind)  # the hub's errors want a response, which says nothing here
            monkeypatch.setattr(checkpoints, "hf_hub_download", Mock(side_effect=error))
            with pytest.raises(CheckpointError) as caught:
                find_checkpoint("acme/toy", revision="v1")
            message = str(caught.value)
            assert message.startswith(
                "'acme/toy' is not a local directory, and its config.json cannot be downloaded from the hub: "
            )
            assert reason in message
            assert "Run `hf download acme/toy --revision v1` where the hub can be reached" in message


def test_offline_mode_is_honoured_and_named(tmp_path: Path) -> None:
    script = """
import sys
from vlm_adapters import load_adapter
from vlm_adapters.errors import CheckpointError
try:
    load_adapter("acme/toy")
except CheckpointError as error:
    print(error, "torch" in sys.modules)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "HF_HUB_OFFLINE is set, so the hub was not contacted. Run `hf download acme/toy` where" in done.stdout
    assert done.stdout.endswith("False\n")
    assert done.stderr == ""
