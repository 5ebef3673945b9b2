"""Checkpoints with the published names and shapes, written out by hand, become ours; others are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.decoder.flmm import Difference, compare_flmm, convert_flmm, our_name, read_flmm
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import CheckpointError

SIZES = {
    "llava": (32, 32, 4096, 1),
    "llava_next": (32, 32, 4096, 2),
    "deepseek_vl": (24, 16, 2048, 1),
    "deepseek_vl_hybrid": (30, 32, 4096, 1),
}


def backbone(name: str) -> BackboneInfo:
    layers, heads, width, grids = SIZES[name]
    return BackboneInfo(
        name, name, None, layers, tuple(range(layers)), heads, width, (14, 14), ("overview", "fine")[-grids:]
    )


def attention(width: int, inner: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("q_proj", "k_proj", "v_proj"):
        shapes |= {f"{part}.weight": (inner, width), f"{part}.bias": (inner,)}
    return shapes | {"out_proj.weight": (width, inner), "out_proj.bias": (width,)}


def linear(after: int, before: int) -> dict[str, tuple[int, ...]]:
    return {"weight": (after, before), "bias": (after,)}


def under(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def unet(channels: int) -> dict[str, tuple[int, ...]]:
    """Names of section 5 and widths of section 4 of the published description."""

    def block(prefix: str, before: int, after: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for index, width in enumerate((before, after)):
            shapes |= {f"{prefix}.convs.{index}.conv.weight": (after, width, 3, 3)}
            shapes |= under(f"{prefix}.convs.{index}.gn", {"weight": (after,), "bias": (after,)})
        return shapes

    shapes = block("mask_head.encoder.0.0", channels, 64)
    for stage in (1, 2, 3):
        shapes |= block(f"mask_head.encoder.{stage}.1", 32 * 2**stage, 64 * 2**stage)
    for stage in (0, 1, 2):
        fine, up = 64 * 2**stage, f"mask_head.decoder.{stage}.upsample.interp_upsample.1"
        shapes |= {f"{up}.conv.weight": (fine, 2 * fine, 1, 1), f"{up}.gn.weight": (fine,), f"{up}.gn.bias": (fine,)}
        shapes |= block(f"mask_head.decoder.{stage}.conv_block", 2 * fine, fine)
    return shapes | {"mask_head.conv_seg.weight": (1, 64, 1, 1), "mask_head.conv_seg.bias": (1,)}


def sam() -> dict[str, tuple[int, ...]]:
    """The published prompt encoder and mask decoder, which are the same for all of Segment Anything's models."""
    shapes: dict[str, tuple[int, ...]] = {"not_a_point_embed.weight": (1, 256), "no_mask_embed.weight": (1, 256)}
    shapes |= {f"point_embeddings.{index}.weight": (1, 256) for index in range(4)}
    for index, shape in ((0, (4, 1, 2, 2)), (1, (4,)), (3, (16, 4, 2, 2)), (4, (16,)), (6, (256, 16, 1, 1))):
        shapes |= {f"mask_downscaling.{index}.weight": shape, f"mask_downscaling.{index}.bias": shape[:1]}
    prompts = under("sam.model.prompt_encoder", shapes)
    block = {f"norm{index}.{part}": (256,) for index in (1, 2, 3, 4) for part in ("weight", "bias")}
    block |= under("self_attn", attention(256, 256)) | under("mlp.lin1", linear(2048, 256))
    block |= under("mlp.lin2", linear(256, 2048))
    for name in ("cross_attn_token_to_image", "cross_attn_image_to_token"):
        block |= under(name, attention(256, 128))
    masks = under("transformer.layers.0", block) | under("transformer.layers.1", block)
    masks |= under("transformer.final_attn_token_to_image", attention(256, 128))
    masks |= under("transformer.norm_final_attn", {"weight": (256,), "bias": (256,)})
    masks |= {"iou_token.weight": (1, 256), "mask_tokens.weight": (4, 256)}
    masks |= {"output_upscaling.0.weight": (256, 64, 2, 2), "output_upscaling.0.bias": (64,)}
    masks |= {"output_upscaling.1.weight": (64,), "output_upscaling.1.bias": (64,)}
    masks |= {"output_upscaling.3.weight": (64, 32, 2, 2), "output_upscaling.3.bias": (32,)}
    for index in range(4):
        for layer, (after, before) in enumerate(((256, 256), (256, 256), (32, 256))):
            masks |= under(f"output_hypernetworks_mlps.{index}.layers.{layer}", linear(after, before))
    for layer, (after, before) in enumerate(((256, 256), (256, 256), (4, 256))):
        masks |= under(f"iou_prediction_head.layers.{layer}", linear(after, before))
    return prompts | under("sam.model.mask_decoder", masks)


def checkpoint(name: str) -> dict[str, Tensor]:
    layers, heads, width, grids = SIZES[name]
    shapes = unet(layers * heads * grids) | sam() | under("text_proj", linear(256, width))
    shapes |= {"text_layer_weights": (layers,)}
    return {name: torch.full(shape, float(index)) for index, (name, shape) in enumerate(shapes.items())}


def test_the_published_number_of_trained_parameters_is_that_of_the_names_here() -> None:
    assert sum(tensor.numel() for tensor in checkpoint("llava").values()) == 12_886_033


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@pytest.mark.parametrize("name", SIZES)
def test_a_published_checkpoint_loads_strictly_into_our_parts(name: str) -> None:
    weights, info = checkpoint(name), backbone(name)
    converted = convert_flmm(weights, info)
    UNet(UNetConfig(info.channels)).load_state_dict(part(converted, "unet."))
    TextPrompt(info.hidden_size, info.num_layers).load_state_dict(part(converted, "refiner.text."))
    assert len(converted) == len(weights)
    assert torch.equal(
        converted["unet.decoder.2.narrow.norm.bias"],
        weights["mask_head.decoder.2.upsample.interp_upsample.1.gn.bias"],
    )
    assert torch.equal(converted["refiner.text.layer_weights"], weights["text_layer_weights"])


def test_missing_surplus_and_misshapen_tensors_are_all_reported() -> None:
    weights = checkpoint("deepseek_vl")
    del weights["text_layer_weights"]
    weights["mask_head.conv_seg.weight"] = torch.zeros(2, 64, 1, 1)
    weights["lmm.embed.weight"] = torch.zeros(3)
    assert compare_flmm(weights, backbone("deepseek_vl")) == [
        Difference("mask_head.conv_seg.weight", (1, 64, 1, 1), (2, 64, 1, 1)),
        Difference("refiner.text.layer_weights", (24,), None),
        Difference("lmm.embed.weight", None, (3,)),
    ]
    with pytest.raises(
        CheckpointError, match=r"does not fit deepseek_vl \(384 channels, width 2048\): 3 tensors differ"
    ):
        convert_flmm(weights, backbone("deepseek_vl"))


def test_a_checkpoint_of_another_backbone_does_not_fit() -> None:
    differing = {difference.name for difference in compare_flmm(checkpoint("llava"), backbone("llava_next"))}
    assert differing == {"mask_head.encoder.0.0.convs.0.conv.weight"}


def test_the_positions_that_are_not_trained_may_be_there() -> None:
    weights = checkpoint("deepseek_vl")
    weights["sam.model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = torch.zeros(2, 128)
    converted = convert_flmm(weights, backbone("deepseek_vl"))
    assert not [name for name in converted if "gaussian" in name]


def test_a_name_without_a_rule_stays() -> None:
    assert our_name("visual.conv.weight") == "visual.conv.weight"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_is_read_plain_or_under_state_dict(wrapped: bool, tmp_path: Path) -> None:  # noqa: FBT001
    weights = {"text_layer_weights": torch.ones(3)}
    torch.save({"state_dict": weights} if wrapped else weights, tmp_path / "a.pth")
    assert torch.equal(read_flmm(tmp_path / "a.pth")["text_layer_weights"], torch.ones(3))


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a stranger ran",)


def test_code_in_a_file_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}, protocol=2))
    torch.save({"state_dict": Hostile()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(CheckpointError, match=r"cannot be read as plain tensors.*save its state_dict alone"):
            read_flmm(tmp_path / name)
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{}, [torch.ones(2)], {"a": 3}])
def test_a_file_without_tensors_by_name_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_flmm(tmp_path / "a.pth")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        read_flmm(tmp_path / "none.pth")
