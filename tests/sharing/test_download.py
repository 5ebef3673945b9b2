"""Decoders from the hub: what is asked for, and every way in which it is refused."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlm_adapters import GroundedVLM, MaskDecoder, load_adapter, load_grounder
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.decoder.download import download_decoder, is_on_hub
from vlm_adapters.errors import AdapterError, CheckpointError, OptionError, UnknownAdapterError
from vlm_adapters.grounding import stored
from vlm_adapters.grounding.load import has_decoder
from vlm_adapters.limits import Limits
from vlm_adapters.registry.load_options import NEVER_FROM_A_FILE

if TYPE_CHECKING:
    from conftest import Files, Hub

ID = "stranger/masks"
TOKEN = "hf_mine"


@pytest.fixture(scope="module")
def adapter() -> BackboneAdapter:
    return load_adapter("tiny-llava")


@pytest.fixture(scope="module")
def files(adapter: BackboneAdapter, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("decoder")
    MaskDecoder.untrained(adapter.info, base_width=2, depth=2).save(folder, adapter.info)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(files: Files, **values: Any) -> Files:
    """A decoder with another config; the values of `backbone` are changed one by one."""
    config = json.loads(files["config.json"])
    config["backbone"] |= values.pop("backbone", {})
    return {**files, "config.json": json.dumps(config | values).encode()}


def refused(**options: Any) -> str:
    with pytest.raises(AdapterError) as caught:
        GroundedVLM.from_pretrained(ID, **options)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def asked_for(hub: Hub) -> set[str]:
    return {request.rsplit("/", 1)[1] for request in hub.requests if "/resolve/" in request}


def test_nothing_but_the_files_of_a_decoder_is_downloaded(hub: Hub, files: Files, adapter: BackboneAdapter) -> None:
    evil = pickle.dumps(print)
    hub.put(ID, {**files, "pytorch_model.bin": evil, "refiner.safetensors": b"?", "../evil.json": b"{}", "run.py": b""})
    GroundedVLM.from_pretrained(ID, adapter=adapter)
    assert asked_for(hub) == {"config.json", "model.safetensors"}
    assert not any("/tree/" in request for request in hub.requests)


def test_all_files_are_of_the_commit_of_the_config(hub: Hub, files: Files, adapter: BackboneAdapter) -> None:
    commit = hub.put(ID, files)
    GroundedVLM.from_pretrained(ID, adapter=adapter)
    weights = [request for request in hub.requests if request.endswith("model.safetensors")]
    assert weights
    assert all(f"/resolve/{commit}/" in request for request in weights)


def test_a_revision_is_that_of_the_decoder_and_the_backbone_keeps_its_own(
    hub: Hub, files: Files, adapter: BackboneAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> BackboneAdapter:
        calls.append((name, options))
        return adapter

    monkeypatch.setattr(stored, "load_adapter", load)
    first = hub.put(ID, changed(files, backbone={"checkpoint": "acme/vlm-7b", "revision": "b" * 40}))
    hub.put(ID, {"config.json": b"{}"})
    GroundedVLM.from_pretrained(ID, revision=first, token=TOKEN, device="cpu", quantization_config="nf4")
    given = {"token": TOKEN, "device": "cpu", "quantization_config": "nf4"}
    assert calls == [("acme/vlm-7b", {"revision": "b" * 40, **given})]
    assert f"Bearer {TOKEN}" in hub.tokens


def test_what_is_in_the_cache_needs_no_hub(hub: Hub, files: Files, tmp_path: Path) -> None:
    hub.put(ID, files)
    before = GroundedVLM.from_pretrained(ID, cache_dir=tmp_path / "mine")
    hub.requests.clear()
    after = GroundedVLM.from_pretrained(ID, cache_dir=tmp_path / "mine", local_files_only=True)
    assert hub.requests == []
    assert after.fingerprint() == before.fingerprint()


def test_a_grounder_is_the_decoder_where_the_id_is_one(hub: Hub, files: Files) -> None:
    hub.put(ID, files)
    hub.put("acme/vlm-7b", {"config.json": b'{"model_type": "llava"}'})
    assert isinstance(load_grounder(ID), GroundedVLM)
    assert not has_decoder("acme/vlm-7b")


def test_a_folder_is_taken_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_on_hub("owner/masks")
    (tmp_path / "owner" / "masks").mkdir(parents=True)
    assert not is_on_hub("owner/masks")
    assert not any(map(is_on_hub, ("tiny-llava", "../masks", "./masks", "/owner/masks", "a/b/c")))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_declared_huge_is_not_downloaded(hub: Hub, files: Files, name: str) -> None:
    hub.put(ID, files)
    hub.declared[name] = 10**13
    assert f"{name} of {ID} has 10,000,000,000,000 bytes; at most" in refused()
    assert not [request for request in hub.requests if request.startswith("GET") and request.endswith(name)]


def test_the_limit_is_the_callers(hub: Hub, files: Files) -> None:
    hub.put(ID, files)
    assert "at most 10 are downloaded" in refused(limits=Limits(max_decoder_bytes=10))


@pytest.mark.parametrize("option", ["trust_remote_code", "device_map", "token"])
def test_a_config_cannot_say_how_its_backbone_is_loaded(hub: Hub, files: Files, option: str) -> None:
    assert option in NEVER_FROM_A_FILE
    hub.put(ID, changed(files, backbone={"options": {option: True}}))
    assert f"{option} decides how a model is loaded; a file cannot set it as an option" in refused()


def test_a_config_cannot_name_files_or_fields_of_its_own(hub: Hub, files: Files) -> None:
    hub.put(ID, changed(files, sha256={"../../.bashrc": "0"}))
    assert "is not a decoder's config" in refused()
    hub.put(ID, changed(files, auto_map={"AutoModel": "run.Model"}))
    assert "is not a decoder's config" in refused()


@pytest.mark.parametrize("checkpoint", ["/etc", "../secrets", "model", "file:///etc/x", ""])
def test_a_backbone_that_is_a_path_is_refused(hub: Hub, files: Files, checkpoint: str) -> None:
    hub.put(ID, changed(files, backbone={"checkpoint": checkpoint}))
    fault = f"{checkpoint!r} is neither a hub id nor an embedded model"
    assert refused() == f"The decoder {ID} names a backbone that is not loaded: {fault}."


@pytest.mark.parametrize("revision", ["../../../x", "/x", "a..b", "x" * 101])
def test_a_backbone_with_an_impossible_revision_is_refused(hub: Hub, files: Files, revision: str) -> None:
    hub.put(ID, changed(files, backbone={"checkpoint": "acme/vlm", "revision": revision}))
    assert "is no revision of a repository" in refused()


def test_weights_that_were_changed_are_refused(hub: Hub, files: Files) -> None:
    damaged = files["model.safetensors"][:-1] + b"!"
    hub.put(ID, {**files, "model.safetensors": damaged})
    assert "is damaged or was changed" in refused()


def test_an_adapter_that_is_not_installed_is_named_with_its_package(hub: Hub, files: Files) -> None:
    hub.put("acme/vlm-7b", {"config.json": b'{"model_type": "acme_vlm"}'})
    backbone = {"checkpoint": "acme/vlm-7b", "model_type": "acme_vlm"}
    hub.put(ID, changed(files, backbone=backbone, plugin="vlm-adapters-acme"))
    with pytest.raises(UnknownAdapterError, match="acme_vlm") as caught:
        GroundedVLM.from_pretrained(ID)
    assert "trained with the package vlm-adapters-acme. If you trust its author, `pip install" in str(caught.value)
    hub.put(ID, changed(files, backbone=backbone, plugin="x; rm -rf"))
    assert "is not a decoder's config" in refused()


def test_a_decoder_says_which_package_offered_the_adapter(files: Files) -> None:
    config = json.loads(files["config.json"])
    assert (config["model_type"], config["plugin"]) == ("vlm_adapters_decoder", "vlm-adapters")


def test_errors_of_the_hub_say_what_to_do(hub: Hub, files: Files) -> None:
    where = f"There is no decoder {ID!r}: no such folder here, and on the hub config.json cannot be downloaded: "
    assert refused().startswith(f"{where}there is no such repository, or it is private and needs a token")
    hub.put(ID, files)
    assert refused(revision="v9").startswith(f"{where}the repository has no revision 'v9'")
    hub.gated.add(ID)
    assert refused().startswith(f"{where}the repository is gated; accept its terms")
    assert "local_files_only is set, so the hub was not contacted" in refused(local_files_only=True)
    hub.put("stranger/other", {"notes.txt": b""})
    with pytest.raises(CheckpointError, match=r"the repository has no config\.json, so it holds no decoder"):
        download_decoder("stranger/other")


def test_a_backbone_in_the_place_of_a_decoder_is_told_apart_and_the_other_way_round(hub: Hub, files: Files) -> None:
    hub.put(ID, {"config.json": b'{"model_type": "llava"}'})
    assert f"{ID} is a backbone of the type 'llava' and holds no decoder" in refused()
    hub.put(ID, {"config.json": b"[]"})
    assert f"{ID} holds no decoder: its config.json names no backbone" in refused()
    hub.put("stranger/decoder", files)
    with pytest.raises(CheckpointError, match=re.escape("is that of a decoder, and a backbone is needed here")):
        load_adapter("stranger/decoder")


def test_no_options_of_loading_go_with_an_adapter_but_those_of_the_hub(
    hub: Hub, files: Files, adapter: BackboneAdapter
) -> None:
    commit = hub.put(ID, files)
    GroundedVLM.from_pretrained(ID, adapter=adapter, revision=commit)
    with pytest.raises(OptionError, match=r"loaded already\. Leave device_map out"):
        GroundedVLM.from_pretrained(ID, adapter=adapter, revision=commit, device_map="auto")
