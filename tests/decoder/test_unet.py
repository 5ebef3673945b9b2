"""The U-Net has the published size and structure, and treats maps as its docstring says."""

import json
import math
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vlm_adapters.decoder.unet import UNet, UNetConfig, normalise
from vlm_adapters.errors import DecoderError

SMALL = UNetConfig(channels=6, base_width=4, depth=3, canvas=16)


def unet(config: UNetConfig = SMALL, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(config).eval()


def attention(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# Structure


@pytest.mark.parametrize(("channels", "parameters"), [(1024, 7_772_609), (384, 7_403_969), (576, 7_514_561)])
def test_the_paper_size_has_the_published_number_of_parameters(channels: int, parameters: int) -> None:
    with torch.device("meta"):
        model = UNet(UNetConfig(channels))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters == 7_182_785 + 576 * channels


def published_shapes(channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoints, written out from the paper's architecture."""
    shapes: dict[str, tuple[int, ...]] = {"conv_seg.weight": (1, 64, 1, 1), "conv_seg.bias": (1,)}

    def layer(name: str, before: int, after: int, kernel: int) -> None:
        shapes[f"{name}.conv.weight"] = (after, before, kernel, kernel)
        shapes[f"{name}.gn.weight"] = shapes[f"{name}.gn.bias"] = (after,)

    encoder = {
        "encoder.0.0": (channels, 64),
        "encoder.1.1": (64, 128),
        "encoder.2.1": (128, 256),
        "encoder.3.1": (256, 512),
    }
    for name, (before, after) in encoder.items():
        layer(f"{name}.convs.0", before, after, 3)
        layer(f"{name}.convs.1", after, after, 3)
    for index, fine in enumerate((64, 128, 256)):
        layer(f"decoder.{index}.upsample.interp_upsample.1", 2 * fine, fine, 1)
        layer(f"decoder.{index}.conv_block.convs.0", 2 * fine, fine, 3)
        layer(f"decoder.{index}.conv_block.convs.1", fine, fine, 3)
    return shapes


def published_name(name: str) -> str:
    parts = name.replace(".norm.", ".gn.").split(".")
    match parts:
        case ["encoder", stage, *rest]:
            return ".".join(["encoder", stage, "0" if stage == "0" else "1", "convs", *rest])
        case ["decoder", stage, "narrow", *rest]:
            return ".".join(["decoder", stage, "upsample", "interp_upsample", "1", *rest])
        case ["decoder", stage, "block", *rest]:
            return ".".join(["decoder", stage, "conv_block", "convs", *rest])
        case ["head", kind]:
            return f"conv_seg.{kind}"
    raise AssertionError(name)


def test_its_weights_map_one_to_one_onto_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        state = UNet(UNetConfig(channels=384)).state_dict()
    assert {published_name(name): tuple(tensor.shape) for name, tensor in state.items()} == published_shapes(384)


def test_a_fresh_one_has_kaiming_weights_and_neutral_norms_and_no_bias() -> None:
    state = unet(UNetConfig(channels=8, base_width=32)).state_dict()
    assert state["head.bias"].item() == 0
    assert all((tensor == 1).all() for name, tensor in state.items() if name.endswith("norm.weight"))
    assert all((tensor == 0).all() for name, tensor in state.items() if name.endswith("norm.bias"))
    deviation = state["encoder.3.0.conv.weight"].std().item()
    assert deviation == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)  # fan_out of 256 channels and 3 x 3


def test_its_config_survives_json() -> None:
    assert UNetConfig(**json.loads(json.dumps(asdict(SMALL)))) == SMALL


def test_a_size_that_makes_no_sense_is_refused(subtests: pytest.Subtests) -> None:
    for value, name in product([0, -1, 2.5, None], ["channels", "base_width", "depth", "canvas"]):
        with (
            subtests.test(value=value, name=name),
            pytest.raises(DecoderError, match=rf"UNetConfig.{name} is {value}. Give an integer of at least 1"),
        ):
            UNetConfig(**{"channels": 4, name: value})


# The way through


def by_hand(model: UNet, maps: torch.Tensor) -> torch.Tensor:
    """The published architecture, written out with functions for depth 4 and canvas 64."""
    state = model.state_dict()

    def layer(x: torch.Tensor, name: str) -> torch.Tensor:
        weight = state[f"{name}.conv.weight"]
        x = functional.conv2d(x, weight, padding=weight.shape[2] // 2)
        mean, variance = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), keepdim=True, unbiased=False)
        scale, shift = state[f"{name}.norm.weight"][:, None, None], state[f"{name}.norm.bias"][:, None, None]
        return torch.clamp((x - mean) / (variance + 1e-5).sqrt() * scale + shift, min=0)

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        return layer(layer(x, f"{name}.0"), f"{name}.1")

    b, c, h, w = maps.shape
    x = maps / maps.sum((2, 3), keepdim=True)
    x = functional.interpolate(x, scale_factor=max(1, 64 / max(h, w)), mode="bilinear", align_corners=False)
    h, w = x.shape[2:]
    padded = x.new_zeros(b, c, (h + 7) // 8 * 8, (w + 7) // 8 * 8)
    padded[:, :, :h, :w] = x
    fine = block(padded, "encoder.0")
    half = block(functional.max_pool2d(fine, 2), "encoder.1")
    quarter = block(functional.max_pool2d(half, 2), "encoder.2")
    x = block(functional.max_pool2d(quarter, 2), "encoder.3")
    for skip, index in ((quarter, 2), (half, 1), (fine, 0)):
        up = layer(functional.interpolate(x, scale_factor=2, mode="bilinear"), f"decoder.{index}.narrow")
        x = block(torch.cat([skip, up], 1), f"decoder.{index}.block")
    x = x[:, :, :h, :w]
    logits: torch.Tensor = torch.einsum("bchw,c->bhw", x, state["head.weight"][0, :, 0, 0]) + state["head.bias"]
    return logits


WHOLE = [(24, 24), (36, 48), (16, 16), (70, 90)]
ROUNDED = [(9, 31), (17, 23), (32, 48), (37, 28), (49, 49), (5, 3)]
"""Grids whose enlarged sides are whole numbers, and such whose sides are rounded down."""


def test_fresh_weights_give_the_published_logits() -> None:
    for h, w in WHOLE + ROUNDED:
        model = unet(UNetConfig(channels=5, base_width=16)).double()
        maps = attention(2, 5, h, w)
        assert (model(maps) - by_hand(model, maps.double())).abs().max() < 1e-5, (h, w)


def test_it_computes_the_published_architecture(subtests: pytest.Subtests) -> None:
    for h, w in WHOLE + ROUNDED:
        with subtests.test(h=h, w=w):
            model = unet(UNetConfig(channels=5, base_width=4))
            for parameter in model.parameters():
                torch.nn.init.uniform_(parameter, -0.5, 1)
            maps = attention(2, 5, h, w)
            torch.testing.assert_close(model(maps), by_hand(model, maps), rtol=1e-4, atol=1e-4)


def test_the_long_side_is_enlarged_to_the_canvas_and_never_shrunk() -> None:
    cases = [
        ((24, 24), (64, 64)),
        ((36, 48), (48, 64)),
        ((17, 23), (47, 64)),
        ((15, 20), (48, 64)),
        ((64, 64), (64, 64)),
        ((70, 90), (70, 90)),
        ((1, 1), (64, 64)),
        ((1, 60), (1, 64)),
        ((1, 128), (1, 128)),
        ((9, 31), (18, 64)),
        ((32, 48), (42, 64)),
        ((37, 28), (64, 48)),
        ((49, 49), (63, 63)),  # 64 / 49 is no whole number of the computer's, either
        ((49, 20), (63, 26)),
        ((3, 128), (3, 128)),
        ((21, 64), (21, 64)),
        ((20, 28), (45, 64)),
    ]
    for cells, expected in cases:
        assert UNetConfig(channels=1).output_size(*cells) == expected, cells


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_padding_never_shows_in_the_size_of_the_logits(h: int, w: int) -> None:
    logits = unet()(attention(1, 6, h, w))
    factor = max(1.0, 16 / max(h, w))
    assert tuple(logits.shape[1:]) == tuple(math.floor(side * factor) for side in (h, w))
    assert tuple(logits.shape[1:]) == SMALL.output_size(h, w)
    assert torch.isfinite(logits).all()


def test_normalising_divides_every_map_by_its_own_sum() -> None:
    maps = attention(2, 3, 4, 5)
    expected = np.array([[m / m.sum() for m in sample] for sample in maps.numpy()])
    np.testing.assert_allclose(normalise(maps).numpy(), expected, rtol=1e-6)


def test_a_map_of_zeros_stays_zero_and_finite() -> None:
    assert (normalise(torch.zeros(1, 1, 3, 3)) == 0).all()
    assert torch.isfinite(unet()(torch.zeros(1, 6, 5, 5))).all()


def test_half_precision_maps_are_summed_in_float32() -> None:
    maps = torch.ones(1, 1, 300, 300, dtype=torch.float16)  # their sum is beyond float16
    torch.testing.assert_close(normalise(maps), torch.full((1, 1, 300, 300), 1 / 90_000))


def test_the_scale_of_a_single_map_does_not_matter() -> None:
    maps = attention(1, 6, 7, 9)
    scaled = maps * torch.tensor([5.0, 1, 0.01, 1, 1, 300])[None, :, None, None]
    torch.testing.assert_close(unet()(scaled), unet()(maps), rtol=1e-4, atol=1e-5)


def test_a_batch_equals_its_samples_one_by_one() -> None:
    maps = attention(3, 6, 7, 9)
    together, alone = unet()(maps), torch.cat([unet()(maps[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_no_phrases_give_no_masks() -> None:
    assert unet()(torch.zeros(0, 6, 12, 16)).shape == (0, 12, 16)


def test_maps_are_left_as_they_were() -> None:
    maps = attention(1, 6, 20, 20)
    before = maps.clone()
    unet()(maps)
    assert torch.equal(maps, before)


def copying() -> UNet:
    """All kernels are zero but for the centres that carry channel 0 along the finest skip: logits rise with map 0."""
    model = unet(UNetConfig(channels=2, base_width=2, depth=3, canvas=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv.weight"):
                parameter.zero_()
        for block in (model.encoder[0], model.decoder[0].get_submodule("block")):
            for layer in ("0", "1"):
                weight = block.get_submodule(layer).get_parameter("conv.weight")
                weight[0, 0, weight.shape[2] // 2, weight.shape[3] // 2] = 1
        model.head.weight.copy_(torch.tensor([1.0, 0.0])[None, :, None, None])
    return model


def test_every_cell_comes_out_where_it_went_in(subtests: pytest.Subtests) -> None:
    for h, w in [(8, 16), (16, 8), (5, 16), (20, 18)]:
        with subtests.test(h=h, w=w):
            model = copying()
            for y, x in ((0, 0), (0, w - 1), (h - 1, 0), (h - 1, w - 1), (h // 2, w // 3)):
                maps = torch.full((1, 2, h, w), 1e-3)
                maps[0, 0, y, x] = 1
                logits = model(maps)[0]
                assert logits.shape == (h, w)
                assert divmod(int(logits.argmax()), w) == (y, x)


@pytest.mark.parametrize(("h", "w"), [(4, 8), (8, 3)])
def test_an_enlarged_map_keeps_its_cells_in_place(h: int, w: int) -> None:
    model, factor = copying(), 2
    for y, x in ((0, 0), (0, w - 1), (h - 1, 0), (h - 1, w - 1)):
        maps = torch.full((1, 2, h, w), 1e-3)
        maps[0, 0, y, x] = 1
        logits = model(maps)[0]
        assert logits.shape == (factor * h, factor * w)
        row, column = divmod(int(logits.argmax()), factor * w)
        assert (row // factor, column // factor) == (y, x)


def test_the_gradient_reaches_every_weight() -> None:
    model = unet()
    model(attention(2, 6, 11, 13)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_maps_of_another_type_give_logits_of_the_weights_type(dtype: torch.dtype) -> None:
    maps = attention(1, 6, 7, 9).to(dtype)
    logits = unet()(maps)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, unet()(maps.float()))


def test_bfloat16_weights_agree_with_float32_ones() -> None:
    maps = attention(1, 6, 7, 9)
    low = unet().to(torch.bfloat16)(maps)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), unet()(maps), rtol=0.1, atol=0.1)


def test_another_number_of_channels_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        DecoderError, match=r"have 5 channels, and this U-Net was built for 6 \(layers x heads\). Request"
    ):
        unet()(attention(1, 5, 7, 9))


@pytest.mark.parametrize("shape", [(6, 7, 9), (1, 1, 6, 7, 9), (1, 6, 0, 4)])
def test_maps_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DecoderError, match=r"have shape .* Give \(phrases, channels, h, w\)"):
        unet()(torch.zeros(shape))
