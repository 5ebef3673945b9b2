"""Which model a checkpoint file holds, and what is said of files that hold none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import nn

from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.errors import CheckpointError

TinySam = Callable[[], Sam]


@pytest.fixture
def small_vit_b(tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch) -> TinySam:
    """A model of ViT-B's width in the registry's place of ViT-B, with no blocks."""

    def build() -> Sam:
        sam = tiny_sam()
        sam.image_encoder = ImageEncoderViT(img_size=96, embed_dim=768, depth=0, num_heads=12, out_chans=16)
        nn.init.normal_(sam.image_encoder.pos_embed)
        return sam

    monkeypatch.setitem(sam_model_registry, "vit_b", build)
    return build


def test_a_checkpoint_is_loaded_completely_frozen_and_in_eval_mode(small_vit_b: TinySam, tmp_path: Path) -> None:
    saved = small_vit_b().state_dict()
    torch.save(saved, tmp_path / "sam_vit_b.pth")
    sam = load_sam(tmp_path / "sam_vit_b.pth")
    loaded = sam.model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())
    assert not any(module.training for module in sam.modules())
    assert not any(parameter.requires_grad for parameter in sam.model.image_encoder.parameters())


@pytest.mark.parametrize(("name", "width"), [("vit_b", 768), ("vit_l", 1024), ("vit_h", 1280)])
def test_the_width_of_the_encoder_distinguishes_the_published_models(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with torch.device("meta"):
        published = sam_model_registry[name]()
    weight = published.state_dict()["image_encoder.patch_embed.proj.weight"]
    assert weight.shape[0] == width
    built: list[str] = []
    for other in ("vit_b", "vit_l", "vit_h"):
        monkeypatch.setitem(sam_model_registry, other, lambda other=other: built.append(other) or nn.Module())
    torch.save({"image_encoder.patch_embed.proj.weight": torch.empty(weight.shape)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match="do not fit"):
        load_sam(tmp_path / "sam.pth")
    assert built == [name]


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file .*nowhere\.pth.*Give the path of a checkpoint of SAM ViT-B"):
        load_sam(tmp_path / "nowhere.pth")


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        load_sam(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 damaged"])
def test_a_file_of_something_else_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sam.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"sam\.pth cannot be read as weights: .*Give a checkpoint"):
        load_sam(tmp_path / "sam.pth")


class Surprise:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("surprise",)


def test_nothing_in_a_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weights": Surprise()}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match="cannot be read as weights") as raised:
        load_sam(tmp_path / "sam.pth")
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"model": {"weight": torch.zeros(1)}}])
def test_a_file_of_other_things_than_weights_is_an_error(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"not a plain dictionary of weights\. Give a checkpoint"):
        load_sam(tmp_path / "sam.pth")


def test_weights_of_another_kind_are_an_error(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="holds no image encoder of that kind"):
        load_sam(tmp_path / "other.pth")
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(192, 3, 16, 16)}, tmp_path / "tiny.pth")
    with pytest.raises(CheckpointError, match="holds an image encoder of width 192"):
        load_sam(tmp_path / "tiny.pth")


def test_weights_that_are_incomplete_are_an_error(small_vit_b: TinySam, tmp_path: Path) -> None:
    weights = small_vit_b().state_dict()
    del weights["mask_decoder.mask_tokens.weight"]
    torch.save(weights, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"do not fit their model: .*mask_tokens\.weight") as raised:
        load_sam(tmp_path / "sam.pth")
    assert "\n" not in str(raised.value)


@pytest.fixture
def mobile_sam_file(tmp_path: Path) -> Path:
    torch.save({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "mobile_sam.pt")
    return tmp_path / "mobile_sam.pt"


def test_mobile_sam_names_what_to_install(mobile_sam_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mobile_sam", None)
    with pytest.raises(CheckpointError, match=r"is MobileSAM's.*Install 'vlm-adapters\[sam\]'"):
        load_sam(mobile_sam_file)


@pytest.mark.skipif(not all(map(find_spec, ("timm", "mobile_sam"))), reason="vlm-adapters[sam] is not installed")
def test_mobile_sam_is_built_by_its_package(mobile_sam_file: Path) -> None:
    # No warning of the packages that it imports reaches the user: here it would be an error.
    with pytest.raises(CheckpointError, match="do not fit their model"):
        load_sam(mobile_sam_file)
    model = importlib.import_module("mobile_sam").sam_model_registry["vit_t"]()
    for name, parameter in model.named_parameters():
        if "attention_biases" in name:
            nn.init.normal_(parameter)
    torch.save(model.state_dict(), mobile_sam_file)
    sam = load_sam(mobile_sam_file)
    loaded = sam.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    # What it works out of its weights when it enters eval mode is of the weights that were loaded.
    attention = sam.model.image_encoder.layers[1].blocks[0].attn
    assert torch.equal(attention.ab, attention.attention_biases[:, attention.attention_bias_idxs])
