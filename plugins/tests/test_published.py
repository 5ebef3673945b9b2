"""Full-size facts of the published checkpoints, from their configurations alone: no weights, no network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vlm_adapters import Prompt, TransformersBackbone, cli, list_adapters
from vlm_adapters.inspection.memory import pass_memory
from vlm_adapters.inspection.model import Trial, describe
from vlm_adapters.registry.loading import load_published

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Facts:
    """Grids and tokens are those of an image of 480x640 pixels."""

    parameters: int
    layers: int
    heads: int
    width: int
    channels: int
    grids: tuple[tuple[int, int], ...]
    image_tokens: int


COARSE, FINE = (24, 24), (36, 48)
PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": Facts(7_063_427_072, 32, 32, 4096, 1024, (COARSE,), 576),
    "llava-hf/llava-v1.6-vicuna-7b-hf": Facts(7_063_431_168, 32, 32, 4096, 2048, (COARSE, FINE), 2340),
    "llava-hf/llava-v1.6-mistral-7b-hf": Facts(7_566_747_648, 32, 32, 4096, 2048, (COARSE, FINE), 2340),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": Facts(8_030_807_584, 28, 28, 3584, 1568, ((27, 27), (40, 54)), 2929),
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": Facts(24_011_361_280, 40, 32, 5120, 1280, ((18, 23),), 432),
    "mistral-community/pixtral-12b": Facts(12_682_739_712, 40, 32, 5120, 1280, ((30, 40),), 1230),
    "HuggingFaceTB/SmolVLM-256M-Instruct": Facts(256_484_928, 30, 9, 576, 540, ((8, 8), (24, 32)), 832),
    "HuggingFaceTB/SmolVLM-500M-Instruct": Facts(507_482_304, 32, 15, 960, 960, ((8, 8), (24, 32)), 832),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": Facts(2_246_784_880, 24, 32, 2048, 1536, ((9, 9), (27, 36)), 1053),
    "LiquidAI/LFM2-VL-450M": Facts(450_822_656, 16, 16, 1024, 192, ((13, 18),), 234),
    "deepseek-community/deepseek-vl-1.3b-chat": Facts(1_943_766_016, 24, 16, 2048, 384, (COARSE,), 576),
    "deepseek-community/deepseek-vl-7b-chat": Facts(7_331_390_721, 30, 32, 4096, 960, (COARSE,), 576),
    "Qwen/Qwen2-VL-2B-Instruct": Facts(2_208_985_600, 28, 12, 1536, 336, ((17, 23),), 391),
    "Qwen/Qwen2-VL-7B-Instruct": Facts(8_291_375_616, 28, 28, 3584, 784, ((17, 23),), 391),
    "Qwen/Qwen2.5-VL-3B-Instruct": Facts(3_754_622_976, 36, 16, 2048, 576, ((17, 23),), 391),
    "Qwen/Qwen2.5-VL-7B-Instruct": Facts(8_292_166_656, 28, 28, 3584, 784, ((17, 23),), 391),
    "Qwen/Qwen3-VL-2B-Instruct": Facts(2_127_532_032, 28, 16, 2048, 448, ((15, 20),), 300),
    "Qwen/Qwen3-VL-4B-Instruct": Facts(4_437_815_808, 36, 32, 2560, 1152, ((15, 20),), 300),
    "Qwen/Qwen3-VL-8B-Instruct": Facts(8_767_123_696, 36, 32, 4096, 1152, ((15, 20),), 300),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": Facts(31_070_754_032, 48, 32, 2048, 1536, ((15, 20),), 300),
    "Qwen/Qwen3.5-9B": Facts(9_409_813_744, 32, 16, 4096, 128, ((15, 20),), 300),
    "Qwen/Qwen3.5-35B-A3B": Facts(35_107_181_936, 40, 16, 2048, 160, ((15, 20),), 300),
    "Qwen/Qwen2.5-Omni-7B": Facts(8_931_813_888, 28, 28, 3584, 784, ((17, 23),), 391),
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": Facts(31_719_205_488, 48, 32, 2048, 1536, ((15, 20),), 300),
    "zai-org/GLM-4.1V-9B-Thinking": Facts(10_292_777_472, 40, 32, 4096, 1280, ((17, 23),), 391),
    "zai-org/GLM-4.5V": Facts(107_710_927_360, 46, 96, 4096, 4416, ((17, 23),), 391),
    "zai-org/GLM-4.6V-Flash": Facts(10_292_777_472, 40, 32, 4096, 1280, ((17, 23),), 391),
    "OpenGVLab/InternVL3-1B-hf": Facts(938_193_024, 24, 14, 896, 672, ((16, 16), (48, 64)), 3328),
    "OpenGVLab/InternVL3-8B-hf": Facts(7_944_373_760, 28, 28, 3584, 1568, ((16, 16), (48, 64)), 3328),
    "thisisiron/Ovis2-1B-hf": Facts(1_267_417_974, 24, 14, 896, 672, ((16, 16), (32, 32)), 1280),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": Facts(108_641_793_536, 48, 40, 5120, 3840, ((12, 12), (24, 24)), 720),
    "THUDM/cogvlm-chat-hf": Facts(17_639_685_376, 32, 32, 4096, 1024, ((35, 35),), 1227),
    "THUDM/cogvlm-base-224-hf": Facts(17_637_948_928, 32, 32, 4096, 1024, ((16, 16),), 258),
    "google/gemma-3-4b-it": Facts(4_300_079_472, 34, 8, 2560, 272, ((16, 16),), 256),
    "google/gemma-3-12b-it": Facts(12_187_325_040, 48, 16, 3840, 768, ((16, 16),), 256),
    "google/gemma-3-27b-it": Facts(27_432_406_640, 62, 32, 5376, 1984, ((16, 16),), 256),
    "google/gemma-4-E2B-it": Facts(5_104_297_504, 35, 8, 1536, 280, ((14, 19),), 266),
    "google/gemma-4-12B-it": Facts(11_959_730_176, 48, 16, 3840, 768, ((14, 19),), 266),
    "google/gemma-4-26B-A4B-it": Facts(25_805_933_872, 30, 16, 2816, 480, ((14, 19),), 266),
    "google/gemma-4-31B-it": Facts(31_273_086_512, 60, 32, 5376, 1920, ((14, 19),), 266),
    "google/paligemma-3b-mix-224": Facts(2_923_466_480, 18, 8, 2048, 144, ((16, 16),), 256),
    "google/paligemma2-3b-mix-448": Facts(3_033_127_152, 26, 8, 2304, 208, ((32, 32),), 1024),
    "adept/fuyu-8b": Facts(9_408_238_592, 36, 64, 4096, 2304, ((16, 22),), 368),
    "CohereLabs/aya-vision-8b": Facts(8_631_842_032, 32, 32, 4096, 2048, ((13, 13), (39, 52)), 2197),
    "CohereLabs/command-a-vision-07-2025": Facts(111_867_525_360, 64, 96, 12288, 12288, ((16, 16), (16, 32)), 768),
    "openbmb/MiniCPM-V-4.6": Facts(1_300_428_016, 24, 8, 1024, 96, ((7, 9), (10, 14)), 203),
    "allenai/Molmo2-4B": Facts(4_850_869_200, 36, 32, 2560, 2304, ((14, 14), (23, 23)), 752),
}


KINDS_OF_ATTENTION = (
    "llava-hf/llava-1.5-7b-hf",  # full
    "Qwen/Qwen2-VL-2B-Instruct",  # keys that heads share
    "google/gemma-3-4b-it",  # windows
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",  # chunks
    "Qwen/Qwen3.5-9B",  # linear in most layers
    "LiquidAI/LFM2-VL-450M",  # convolutions in some
)


@cache
def built(checkpoint: str) -> Any:
    adapter = load_published(checkpoint)
    assert isinstance(adapter, TransformersBackbone)
    return adapter


def test_the_facts_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_adapters.inspection.model.pass_memory", lambda *_: None)  # counted below
    for checkpoint, expected in PUBLISHED.items():
        report = describe(built(checkpoint), published=True)
        info, forward = report.info, report.forward
        assert forward
        facts = Facts(
            parameters=report.parameters or 0,
            layers=info.num_layers,
            heads=info.num_heads,
            width=info.hidden_size,
            channels=report.channels,
            grids=forward.grids,
            image_tokens=forward.image_tokens,
        )
        assert (checkpoint, facts) == (checkpoint, expected)
        assert report.decoder_parameters == 7_182_785 + 576 * report.channels, checkpoint
        assert forward.weight_bytes == 2 * (report.parameters or 0), checkpoint
        assert info.checkpoint == checkpoint


def test_the_model_is_on_the_meta_device() -> None:
    for checkpoint in PUBLISHED:
        assert {tensor.device.type for tensor in built(checkpoint).model.state_dict().values()} == {"meta"}, checkpoint


def test_rows_cost_what_they_keep_and_all_of_attention_much_more() -> None:
    for checkpoint in KINDS_OF_ATTENTION:
        facts, forward = PUBLISHED[checkpoint], describe(built(checkpoint), published=True).forward
        assert forward
        memory = forward.memory
        assert memory
        cells = sum(rows * columns for rows, columns in forward.grids)
        stored = facts.layers * facts.heads * forward.trial.rows * cells * 4
        temporary = (3 * facts.heads * forward.trial.rows + facts.width) * forward.tokens * 4  # scores, keys in float32
        assert 0 <= memory.rows - memory.plain <= stored + temporary, checkpoint
        layers = len(built(checkpoint).info.attention_layers)
        assert memory.eager > layers * facts.heads * forward.tokens**2 * 2, checkpoint


def test_control_tokens_have_the_ids_that_the_config_says() -> None:
    for checkpoint in PUBLISHED:
        adapter = built(checkpoint)
        config, processor = adapter.model.config, adapter.processor
        assert config.image_token_id in adapter.image_token_ids, (
            checkpoint
        )  # that of the processor may be a placeholder
        for role, token in {
            "video": getattr(processor, "video_token", "<|video_pad|>"),
            "vision_start": getattr(processor, "vision_bos_token", "<|vision_start|>"),
            "vision_end": getattr(processor, "vision_eos_token", "<|vision_end|>"),
        }.items():
            expected = getattr(config, f"{role}_token_id", None)
            if expected and (role != "video" or expected != config.image_token_id):  # Molmo 2's videos are of those
                assert processor.tokenizer.convert_tokens_to_ids(token) == expected, checkpoint
        ids = processor.tokenizer.convert_tokens_to_ids(list(processor.tokenizer.added_tokens_encoder))
        assert len(set(ids)) == len(ids), checkpoint
        text = config.get_text_config()
        assert max(ids) < text.vocab_size + getattr(text, "additional_vocab_size", 0), checkpoint


def test_a_prompt_is_prepared_without_weights() -> None:
    for checkpoint in PUBLISHED:
        adapter = built(checkpoint)
        image = Image.new("RGB", (96, 64))
        inputs = adapter.preprocess([Prompt.describe(image, "a red circle", ["red circle"])])
        assert {tensor.device.type for tensor in inputs.tensors.values()} == {"cpu"}, checkpoint
        ids = inputs.tensors["input_ids"][0]
        assert adapter.processor.tokenizer.decode(ids[inputs.phrase_tokens[0][0]]) == "red circle", checkpoint
        for grid in adapter.locate_image_tokens(inputs)[0]:
            assert ids[grid.tokens].eq(adapter.model.config.image_token_id).all(), checkpoint


def test_every_file_is_of_a_checkpoint_that_its_plugin_names() -> None:
    names = {checkpoint for entry in list_adapters() for checkpoint in entry.checkpoints}
    files = {path.stem.replace("--", "/") for path in ROOT.glob("*/vlm_adapters_*/published/*.json")}
    assert files == set(PUBLISHED) <= names


def test_a_checkpoint_without_a_file_is_left_to_the_hub() -> None:
    assert load_published("Qwen/Qwen2.5-VL-72B-Instruct") is None


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_info_says_that_nothing_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", None)  # whoever asks the network, fails
    text = run("info", "llava-hf/llava-v1.6-vicuna-7b-hf")
    for words in (
        "published configuration; no weights loaded",
        "7,063,431,168",
        "2,048 = 32 layers x 32 heads x 2 grids",
        "24x24, 36x48",
        "2,404 tokens",
        "13,472.4 MiB",
        "8,362,433 parameters",
    ):
        assert words in text
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())


def test_info_reports_sizes_for_the_image_and_text_given() -> None:
    options = ("--image", "1920x1080", "--tokens-of-text", "100", "--rows", "50")
    report = json.loads(run("info", "Qwen/Qwen2.5-VL-3B-Instruct", *options, "--json"))
    forward = report["forward"]
    assert report["published"] is True
    assert forward["trial"] == {"image": [1080, 1920], "text_tokens": 100, "rows": 50}
    assert forward["grids"] == [[39, 69]]
    assert (forward["image_tokens"], forward["tokens"]) == (39 * 69, 39 * 69 + 100)
    assert forward["memory"]["plain"] < forward["memory"]["rows"] < forward["memory"]["eager"]


@pytest.mark.parametrize("option", ["--revision", "--dtype", "--device"])
def test_info_loads_the_checkpoint_where_an_option_of_loading_is_given(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(name: str, **options: object) -> object:
        assert options[option.removeprefix("--")] == "float32"
        return built(name)

    monkeypatch.setattr("vlm_adapters.registry.loading.load_adapter", loaded)
    monkeypatch.setattr("vlm_adapters.inspection.model.pass_memory", lambda *_: None)
    report = json.loads(run("info", "llava-hf/llava-1.5-7b-hf", option, "float32", "--json"))
    assert report["published"] is False


def test_a_pass_that_cannot_be_counted_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("it asks\nfor values")

    monkeypatch.setattr("vlm_adapters.inspection.model.pass_memory", fail)
    forward = describe(built("llava-hf/llava-1.5-7b-hf"), Trial()).forward
    assert forward
    assert (forward.memory, forward.problem) == (None, "it asks for values")
    assert "cannot be counted: it asks for values" in run("info", "llava-hf/llava-1.5-7b-hf")


def test_memory_of_a_pass_leaves_the_adapter_as_it_was() -> None:
    adapter = built("Qwen/Qwen3-VL-2B-Instruct")
    config = adapter.model.config.get_text_config()
    pass_memory(config, 40, 4, 16, range(2))
    assert config._attn_implementation == "sdpa"  # noqa: SLF001 - transformers has no public reader
