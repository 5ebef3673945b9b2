"""Families for which no adapter can be built: refused by name, type and checkpoint, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.errors import PluginError, UnknownAdapterError
from vlm_adapters.registry import checkpoints
from vlm_adapters.registry.discovery import list_adapters
from vlm_adapters.registry.loading import load_adapter
from vlm_adapters.registry.unsupported import UNSUPPORTED, unsupported_family
from vlm_adapters.scaffold.family import Family
from vlm_adapters.scaffold.project import write_project

if TYPE_CHECKING:
    from conftest import Site

ISSUE = {
    "aria": "learned queries",
    "blip-2": "Q-Former",
    "deepseek_ocr2": "learned queries",
    "idefics2": "learned queries",
    "instructblip": "Q-Former",
    "instructblipvideo": "Q-Former",
    "kosmos-2": "learned queries",
    "kosmos-2.5": "learned queries",
    "blip": "its keys are in no sequence",
    "idefics": "its keys are in no sequence",
    "mllama": "its keys are in no sequence",
    "git": "before the text",
    "florence2": "an encoder",
    "pix2struct": "an encoder",
    "pp_formulanet": "an encoder",
    "t5gemma2": "an encoder",
    "udop": "an encoder",
    "vision-encoder-decoder": "an encoder",
    "chameleon": "codes",
    "apertus1p5": "codes",
    "emu3": "codes",
    "evolla": "proteins",
    "mistral4": "text only",
    "pi0": "robot",
    "mgm": "transformers has no class of it",
    "hpt": "transformers has no class of it",
    "kimi_vl": "transformers has no class of it",
    "molmo": "transformers has no class of it",
    "deepseek_vl_v2": "transformers has no class of it",
    "ovis2_5": "transformers has no class of it",
    "minicpmv": "learned queries",
    "llavaonevision1_5": "transformers has no class of it",
    "cogvlm2": "transformers has no class of it",
}
"""Model type or name -> words of the reason."""


def refusal(attempt: Callable[[], object]) -> str:
    with pytest.raises(UnknownAdapterError) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr(checkpoints, "hf_hub_download", download)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ISSUE)
def test_scaffold_info_and_loading_refuse_a_family_alike(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": name}), encoding="utf-8")
    found = refusal(lambda: load_adapter(folder))
    assert ISSUE[name] in found
    assert refusal(lambda: load_adapter(name)) == found
    assert refusal(lambda: write_project(name, tmp_path / "project")) == found
    for model in (name, str(folder)):
        assert str(CliRunner().invoke(app, ["info", model]).exception) == found
    assert not (tmp_path / "project").exists()


@pytest.mark.usefixtures("no_network")
def test_every_checkpoint_is_refused_without_the_hub(subtests: pytest.Subtests) -> None:
    ready = {entry.name for entry in list_adapters()}
    for family in UNSUPPORTED:
        for checkpoint in () if ready & set(family.names) else family.checkpoints:
            for name in (checkpoint, checkpoint.lower()):
                with subtests.test(name=name):
                    assert refusal(partial(load_adapter, name)) == family.refusal


def test_a_plugin_for_such_a_family_is_used(site: Site, tmp_path: Path) -> None:
    site.add_plugin("acme-molmo", TOY_MOLMO, plugin="molmo1")
    site.add_module("molmo1", "class Adapter:\n    from_pretrained = classmethod(lambda cls, path, **_: path)")
    (tmp_path / "config.json").write_text('{"model_type": "molmo"}', encoding="utf-8")
    assert load_adapter(tmp_path) == str(tmp_path)  # type: ignore[comparison-overlap]


TOY_MOLMO = """
from vlm_adapters import AdapterSpec, hookimpl

@hookimpl
def adapter_specs():
    return [AdapterSpec("molmo", "molmo1:Adapter")]
"""


def test_no_name_or_checkpoint_stands_twice() -> None:
    names = [name.casefold() for family in UNSUPPORTED for name in (*family.names, *family.checkpoints)]
    assert len(names) == len(set(names))
    assert unsupported_family("internvl") is None


@pytest.mark.parametrize("model_type", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
def test_every_type_of_transformers_is_supported_or_refused_or_may_be_scaffolded(model_type: str) -> None:
    if model_type in {entry.name for entry in list_adapters()}:
        assert unsupported_family(model_type) is None
    elif unsupported_family(model_type) is None:
        assert Family.of(model_type).model_type == model_type


def config(model_type: str) -> PreTrainedConfig:
    try:
        return CONFIG_MAPPING[model_type]()
    except ValueError:  # it has no default sizes
        return CONFIG_MAPPING[model_type].__new__(CONFIG_MAPPING[model_type])


def keys(content: object) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from keys(value)


QUERIES = {"num_query_tokens", "resampler_n_latents", "latent_query_num", "projector_patch_to_query_dict"}
CROSS_ATTENTION = {"cross_attention_layers", "cross_layer_interval"}


@pytest.mark.parametrize("model_type", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
def test_what_the_config_shows_is_what_the_refusal_says(model_type: str) -> None:
    shown = config(model_type)
    named = set(keys(shown.to_dict())) if vars(shown) else set()
    family = unsupported_family(model_type)
    reason = family.reason if family else ""
    assert (shown.is_encoder_decoder is True or model_type == "vision-encoder-decoder") == (
        "an encoder reads" in reason
    )
    if named & CROSS_ATTENTION:
        assert "its keys are in no sequence" in reason
    elif named & QUERIES:
        assert "learned queries" in reason


def test_a_family_that_shows_no_image_tokens_and_is_not_listed_cannot_be_scaffolded() -> None:
    with pytest.raises(PluginError, match="shows no image tokens in one sequence with the text, so a plugin cannot"):
        Family.of("florence2")
    with pytest.raises(PluginError, match="Write a class with the methods of BackboneAdapter instead"):
        Family.of("blip")
