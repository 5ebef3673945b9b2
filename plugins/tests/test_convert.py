"""`adapters convert flmm` over the published backbones: all the names, none lost, and other files refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.decoder.checkpoint import DecoderConfig
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.errors import CheckpointError

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "decoder"))
from test_flmm import SIZES, checkpoint

BACKBONES = {
    "llava": "llava-hf/llava-1.5-7b-hf",
    "llava_next": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "deepseek_vl": "deepseek-community/deepseek-vl-1.3b-chat",
    "deepseek_vl_hybrid": "deepseek-community/deepseek-vl-7b-chat",
}


@pytest.mark.parametrize("name", SIZES)
def test_a_published_checkpoint_becomes_a_decoders_folder(name: str, tmp_path: Path) -> None:
    torch.save(checkpoint(name), tmp_path / "flmm.pth")
    arguments = ["convert", "flmm", str(tmp_path / "flmm.pth"), "--backbone", name, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    config = DecoderConfig.read(tmp_path / "out" / "config.json")
    assert config.backbone.checkpoint == BACKBONES[name]
    assert config.refiner is not None
    assert config.refiner.image_encoder.startswith("ImageEncoderViT of 308,")
    layers, heads, width, grids = SIZES[name]
    assert config.unet.channels == layers * heads * grids
    with torch.device("meta"):
        refiner = SAMRefiner(SegmentAnything(sam_model_registry["vit_l"]()), TextPrompt(width, layers))
    wanted = {key: tensor.shape for key, tensor in refiner.trained_weights().items()}
    assert {key: tensor.shape for key, tensor in load_file(tmp_path / "out" / "refiner.safetensors").items()} == wanted


def test_a_checkpoint_of_another_backbone_is_a_table_and_nothing_is_written(tmp_path: Path) -> None:
    torch.save(checkpoint("deepseek_vl"), tmp_path / "flmm.pth")
    arguments = ["convert", "flmm", str(tmp_path / "flmm.pth"), "--backbone", "llava", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "text_layer_weights" in done.output
    assert "(32,)" in done.output
    assert "(24,)" in done.output
    assert "Nothing was written" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_backbone_whose_sizes_nobody_knows_is_reported(tmp_path: Path) -> None:
    torch.save({"text_layer_weights": torch.ones(3)}, tmp_path / "a.pth")
    arguments = ["convert", "flmm", str(tmp_path / "a.pth"), "--backbone", "acme/toy", "--out", str(tmp_path / "out")]
    with pytest.raises(CheckpointError, match=r"No plugin knows the sizes of 'acme/toy'.*llava"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_a_checkpoint_of_another_project_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", "lisa", "a.pth", "--backbone", "llava", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "'lisa'" in done.output
    assert "flmm" in done.output
