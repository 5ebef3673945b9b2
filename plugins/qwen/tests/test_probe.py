"""`adapters info` and `adapters probe` over a saved tiny Qwen2.5-VL, as a stranger runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vlm_adapters import GroundedVLM, cli
from vlm_adapters_qwen.tiny import qwen2_5_vl

PUBLISHED_GRIDS = {(336, 336): (12, 12), (480, 640): (17, 23), (640, 480): (23, 17), (100, 300): (4, 11)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    adapter = qwen2_5_vl()
    adapter.processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    adapter.model.save_pretrained(folder)
    adapter.processor.save_pretrained(folder)
    GroundedVLM.untrained(adapter, base_width=8).save_pretrained(folder / "decoder")
    return folder


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def probed(checkpoint: Path) -> dict[str, Any]:
    return json.loads(run("probe", checkpoint, "--json"))


@pytest.fixture(scope="module")
def described(checkpoint: Path) -> dict[str, Any]:
    return json.loads(run("info", checkpoint, "--json"))


def test_classes_and_kernels(probed: dict[str, Any]) -> None:
    assert probed["classes"] == {
        "adapter": "QwenAdapter",
        "model": "Qwen2_5_VLForConditionalGeneration",
        "processor": "Qwen2_5_VLProcessor",
        "image_processor": "Qwen2VLImageProcessor",
        "tokenizer": "TokenizersBackend",
    }
    assert (probed["dtype"], probed["device"]) == ("float32", "cpu")
    assert probed["text"]["kernel"] == probed["vision"][0]["kernel"] == "sdpa"


def test_special_tokens_are_those_of_the_checkpoint(probed: dict[str, Any]) -> None:
    tokenizer = qwen2_5_vl().processor.tokenizer
    found = {token["role"]: token for token in probed["special_tokens"]}
    for role, text in {
        "image": "<|image_pad|>",
        "video": "<|video_pad|>",
        "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>",
        "pad": "<|endoftext|>",
        "eos": "<|im_end|>",
    }.items():
        assert found[role]["token"] == text
        assert found[role]["id"] == tokenizer.convert_tokens_to_ids(text)
    assert {"processor", "config"} <= set(found["image"]["said_by"])


def test_images_have_the_published_grids(probed: dict[str, Any]) -> None:
    images = {tuple(image["image"]): image for image in probed["images"]}
    for (height, width), (h, w) in PUBLISHED_GRIDS.items():
        image = images[height, width]
        assert image["grids"] == [[h, w]]
        assert image["resized"] == [h * 28, w * 28]
        assert image["tokens"] == h * w
        assert image["patches"] == 4 * h * w
        assert image["boxes"] == [[0, 0, width, height]]
    assert images[1080, 1920]["tokens"] <= 1280


def test_layers_and_tensors_are_those_of_a_forward_pass(probed: dict[str, Any]) -> None:
    assert [layer["index"] for layer in probed["layers"]] == [0, 1, 2]
    tensors = {tensor["name"]: tensor for tensor in probed["tensors"]}
    gh, gw = 6, 12  # 96x160, rounded to cells of 28
    assert tensors["pixel_values"]["shape"] == [gh * gw, 3 * 2 * 14 * 14]
    for layer in probed["layers"]:
        assert layer["attention"] == [[4, gh // 2, gw // 2]]
        assert layer["hidden"] == [[64, gh // 2, gw // 2]]
        assert 0 < layer["on_image"] < 1
    assert probed["text"] | {"kernel": None} == {
        "model_type": "qwen2_5_vl_text",
        "layers": 3,
        "heads": 4,
        "key_value_heads": 2,
        "width": 64,
        "vocabulary": 263,
        "max_positions": 4096,
        "kernel": None,
    }


def test_the_vision_tower_is_described(probed: dict[str, Any]) -> None:
    (tower,) = probed["vision"]
    assert tower["sizes"] == {"depth": 2, "width": 32, "heads": 2, "patch": 14, "merge": 2}
    assert tower["more"]["fullatt_block_indexes"] == [1]
    assert tower["more"]["window_size"] == 112


def test_info_reports_the_sizes_that_a_consumer_needs(described: dict[str, Any], checkpoint: Path) -> None:
    adapter = qwen2_5_vl()
    info = described["info"]
    assert info["checkpoint"] == str(checkpoint)
    assert (info["model_type"], info["attention_layers"], info["cell"]) == ("qwen2_5_vl", [0, 1, 2], [28, 28])
    assert described["channels"] == 12
    assert described["parameters"] == sum(parameter.numel() for parameter in adapter.model.parameters())
    assert info["options"] == [["min_pixels", 56 * 56], ["max_pixels", 28 * 28 * 1280]]
    assert described["plugin"] == "qwen"
    assert "Qwen/Qwen2.5-VL-3B-Instruct" in described["checkpoints"]


def test_info_reports_the_decoder_beside_the_checkpoint(described: dict[str, Any]) -> None:
    decoder = GroundedVLM.untrained(qwen2_5_vl(), base_width=8).decoder.unet
    assert described["decoder"] == {
        "channels": 12,
        "base_width": 8,
        "depth": 4,
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "layers": None,
        "heads": None,
    }


def test_info_of_an_adapters_name_loads_nothing() -> None:
    report = json.loads(run("info", "qwen2_5_vl", "--json"))
    assert (report["name"], report["plugin"], report["state"]) == ("qwen2_5_vl", "qwen", "ready")
    assert report["target"] == "vlm_adapters_qwen.adapter:QwenAdapter"
    assert "Qwen/Qwen2.5-VL-3B-Instruct" in run("info", "qwen2_5_vl")


@pytest.mark.parametrize(
    ("command", "content"),
    [
        (
            "probe",
            ["Qwen2_5_VLForConditionalGeneration", "<|image_pad|>", "480x640", "17x23", "1,564", "full_attention"],
        ),
        ("info", ["12 = 3 layers x 4 heads", "1,003,520", "28x28 pixels", "Qwen/Qwen2.5-VL-72B-Instruct"]),
    ],
)
def test_tables_fit_80_columns(command: str, content: list[str], checkpoint: Path) -> None:
    text = run(command, checkpoint)
    for words in content:
        assert words in text
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines() if str(checkpoint) not in line)


@pytest.mark.parametrize("command", ["info", "probe"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda _: "no-such-model", "no-such-model"),
        (lambda path: path / "decoder", "is that of a decoder"),
    ],
)
def test_what_is_not_a_model_is_reported_in_one_line(
    command: str,
    model: Callable[[Path], object],
    message: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["adapters", command, str(model(checkpoint))])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
