"""Decoders that are pushed and loaded again, through huggingface_hub and a stand-in for the hub."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load, load_file

from vlm_adapters import GroundedVLM, MaskDecoder, load_adapter, open_dataset
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.cli import main
from vlm_adapters.decoder import PresenceHead, push_decoder
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, OptionError, OutputError

if TYPE_CHECKING:
    from conftest import Hub

TOKEN = "hf_mine"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


@pytest.fixture(scope="module")
def adapter() -> BackboneAdapter:
    return load_adapter("tiny-llava")


@pytest.fixture
def folder(adapter: BackboneAdapter, tmp_path: Path) -> Path:
    """A small decoder with random weights, and files of a training beside it."""
    torch.manual_seed(0)
    folder = tmp_path / "run" / "best"
    MaskDecoder.untrained(adapter.info, base_width=2, depth=2).save(folder, adapter.info)
    (folder / "optimizer.bin").write_bytes(b"large")
    return folder


def digest_in(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def evaluation(folder: Path, digest: str) -> Path:
    """What `adapters evaluate` writes, as far as it is read."""
    number = {
        "group": "all",
        "phrases": 9,
        "masks": "mask",
        "metric": "mIoU",
        "value": 0.71234,
        "low": 0.7,
        "high": 0.8,
    }
    other = {**number, "group": "thing", "value": 0.1}
    undefined = {**number, "metric": "cIoU", "value": None}
    fingerprint = {
        "data": "scenes:count=9",
        "protocol": "packed",
        "digests": {"decoder/model.safetensors": digest, "backbone": "12"},
    }
    folder.mkdir(exist_ok=True)
    card = {"numbers": [number, other, undefined], "fingerprint": fingerprint, "command": None}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "card.md").write_text("# Evaluation card\n\n## all: 9 phrases\n\n| | mask |\n")
    return folder


def page(hub: Hub, repository: str = "me/masks") -> tuple[dict[str, Any], str]:
    _, head, body = hub.files(repository)["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(head), body


def test_what_is_pushed_comes_back_with_equal_weights_and_masks(hub: Hub, tmp_path: Path) -> None:
    before = GroundedVLM.from_pretrained("tiny-qwen2_5_vl")
    assert before.push_to_hub("me/masks").startswith(f"{hub.url}/me/masks/commit/")
    after = GroundedVLM.from_pretrained("me/masks", cache_dir=tmp_path / "another")
    weights = load_file(embedded_checkpoints()["tiny-qwen2_5_vl"] / "decoder" / "model.safetensors")
    found = after.decoder.unet.state_dict()
    assert weights.keys() == found.keys()
    assert all(torch.equal(weights[name], found[name]) for name in weights)
    assert dict(after.adapter.info.options) == {"min_pixels": 46080, "max_pixels": 55296}
    scene = open_dataset("scenes:count=1,seed=4")[0]
    masks = [[found.mask for found in vlm.ground_all([scene.prompt])[0].phrases] for vlm in (before, after)]
    assert np.array_equal(*masks)
    assert np.any(masks[0])


def test_only_the_files_of_the_decoder_and_a_card_are_pushed(hub: Hub, folder: Path) -> None:
    push_decoder(folder, "me/masks")
    assert set(hub.files("me/masks")) == {"README.md", "config.json", "model.safetensors"}
    pushed = load(hub.files("me/masks")["model.safetensors"])
    assert all(torch.equal(pushed[name], tensor) for name, tensor in load_file(folder / "model.safetensors").items())


def test_what_the_caller_says_reaches_the_hub(hub: Hub, folder: Path) -> None:
    hub.put("me/masks", {"notes.txt": b"mine"})
    push_decoder(folder, "me/masks", revision="trial", commit_message="The first", token=TOKEN)
    push_decoder(folder, "me/hidden", private=True)
    assert (hub.messages[0], hub.private) == ("The first", {"me/hidden": "private"})
    assert f"Bearer {TOKEN}" in hub.tokens
    assert set(hub.files("me/masks")) == {"notes.txt"}
    assert set(hub.files("me/masks", "trial")) == {"notes.txt", "README.md", "config.json", "model.safetensors"}


def test_weights_that_no_longer_belong_to_the_decoder_are_deleted(
    hub: Hub, folder: Path, adapter: BackboneAdapter, tmp_path: Path
) -> None:
    decoder = MaskDecoder.untrained(adapter.info, base_width=2, depth=2)
    with_presence = MaskDecoder(decoder.unet, decoder.request, presence=PresenceHead.of(adapter.info, 32, 4))
    with_presence.save(tmp_path / "presence", adapter.info)
    push_decoder(tmp_path / "presence", "me/masks")
    assert "presence.safetensors" in hub.files("me/masks")
    push_decoder(folder, "me/masks")
    assert "presence.safetensors" not in hub.files("me/masks")


def test_a_card_without_an_evaluation_says_so_and_names_no_licence(hub: Hub, folder: Path) -> None:
    push_decoder(folder, "me/masks")
    data, body = page(hub)
    assert data == {
        "library_name": "vlm-adapters",
        "model_name": "me/masks",
        "pipeline_tag": "image-segmentation",
        "tags": ["vlm-adapters", "visual-grounding"],
    }
    assert "how good its masks are is not known" in body
    assert digest_in(folder) in body
    assert 'GroundedVLM.from_pretrained("me/masks")' in body


def test_a_card_names_the_backbone_of_the_hub_and_its_revision(hub: Hub, folder: Path) -> None:
    edit(folder, checkpoint="acme/vlm-7b", revision="a" * 40)
    push_decoder(folder, "me/masks", license="mit")
    data, body = page(hub)
    assert (data["base_model"], data["license"]) == ("acme/vlm-7b", "mit")
    assert "a" * 40 in body


@pytest.mark.parametrize("beside", [True, False])
def test_the_numbers_of_an_evaluation_are_in_the_card(hub: Hub, folder: Path, tmp_path: Path, beside: bool) -> None:  # noqa: FBT001
    written = evaluation(folder if beside else tmp_path / "evaluation", digest_in(folder))
    push_decoder(folder, "me/masks", evaluation=None if beside else written)
    data, body = page(hub)
    (model,) = data["model-index"]
    (result,) = model["results"]
    assert result["metrics"] == [{"type": "mIoU", "value": 0.7123, "name": "mIoU (mask)"}]
    assert (result["dataset"]["name"], result["dataset"]["config"]) == ("scenes:count=9", "packed")
    assert "## Evaluation card\n\n### all: 9 phrases\n" in body


def test_an_evaluation_of_another_decoder_is_refused(hub: Hub, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"is of another decoder: the SHA-256 of its model\.safetensors is abc"):
        push_decoder(folder, "me/masks", evaluation=evaluation(tmp_path / "evaluation", "abc"))
    with pytest.raises(CheckpointError, match=r"holds no evaluation that can be read: .* Give a folder that `adapters"):
        push_decoder(folder, "me/masks", evaluation=tmp_path)
    assert hub.requests == []


def edit(folder: Path, **backbone: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["backbone"] |= backbone
    path.write_text(json.dumps(config))


def test_a_backbone_that_nobody_else_has_is_refused(hub: Hub, folder: Path) -> None:
    edit(folder, checkpoint="/home/me/llava")
    with pytest.raises(OptionError, match=r"its backbone '/home/me/llava' is neither a hub id nor an embedded model"):
        push_decoder(folder, "me/masks")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["masks", "../masks", "a/b/c", "", "me/ma sks"])
def test_a_name_that_is_no_hub_id_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"is not a hub id\. Give owner/name"):
        push_decoder(folder, name)


def test_a_hub_that_does_not_take_it_is_one_sentence(hub: Hub, folder: Path) -> None:
    hub.put("me/masks", {})
    hub.gated.add("me/masks")
    with pytest.raises(OutputError, match=r"cannot be pushed to me/masks: the repository is gated.*push it again"):
        push_decoder(folder, "me/masks")


def test_the_command_line_pushes_and_grounds_by_the_id(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def adapters(*arguments: str) -> object:
        monkeypatch.setattr("sys.argv", ["adapters", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code

    trained = shutil.copytree(embedded_checkpoints()["tiny-llava"] / "decoder", tmp_path / "best")
    assert adapters("push", str(trained), "me/masks", "--license", "mit") in (0, None)
    assert capsys.readouterr().out == f"{hub.url}/me/masks/commit/{hub.branches['me/masks']['main']}\n"
    scene = open_dataset("scenes:count=1,seed=4")[0]
    scene.image.save(tmp_path / "scene.png")
    out = str(tmp_path / "out")
    assert adapters("ground", str(tmp_path / "scene.png"), scene.text, "--model", "me/masks", "--out", out) in (0, None)
    assert "method: decoder, trained on llava" in capsys.readouterr().out
