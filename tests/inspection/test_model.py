"""The reports on an adapter that is no transformers model, on configs of many families, and on names of adapters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import transformers

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.errors import ImageError, OptionError
from vlm_adapters.inspection.adapter import describe_entry
from vlm_adapters.inspection.configs import special_tokens, towers
from vlm_adapters.inspection.interface import IMAGE_SIZES, TRIAL_SIZE, probe
from vlm_adapters.inspection.model import Trial, describe
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from conftest import Site


class Picky(FakeAdapter):
    """Refuses large images."""

    def __init__(self, *, most_pixels: int = 300_000, name: str = "picky") -> None:
        super().__init__()
        self.most_pixels = most_pixels
        self.name = name

    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs:
        """Refuse, or do as the parent."""
        if any(image.width * image.height > self.most_pixels for prompt in prompts for image in prompt.images):
            raise ImageError("Too large. Shrink it.")
        return super().preprocess(prompts)


def test_an_adapter_without_transformers_is_probed() -> None:
    adapter = FakeAdapter(coarse=True)
    report = probe(adapter)
    assert report.adapter == "fake"
    assert (report.classes.adapter, report.classes.model, report.classes.tokenizer) == (
        "FakeAdapter",
        "FakeModel",
        None,
    )
    assert (report.dtype, report.device) == ("float32", "cpu")
    assert report.special_tokens == ()
    assert report.vision == ()
    assert (report.text.layers, report.text.heads, report.text.width) == (3, 3, adapter.info.hidden_size)
    assert report.text.kernel is None
    assert report.trial_image == TRIAL_SIZE


def test_a_layer_without_attention_keeps_its_place() -> None:
    layers = probe(FakeAdapter(coarse=True)).layers
    assert [layer.index for layer in layers] == [0, 1, 2]
    assert [len(layer.attention) for layer in layers] == [2, 0, 2]
    assert layers[0].attention == ((3, 3, 5), (3, 6, 10))
    assert layers[1].hidden == ((24, 3, 5), (24, 6, 10))
    assert layers[1].on_image is None
    assert all(0 < layers[index].on_image < 1 for index in (0, 2))


def test_every_image_is_really_sent_through() -> None:
    report = probe(FakeAdapter(), [(64, 160), (10, 300)])
    assert [image.image for image in report.images] == [(64, 160), (10, 300)]
    first = report.images[0]
    assert (first.resized, first.tiles, first.patches) == ((64, 160), 1, None)
    assert (first.grids, first.tokens, first.boxes) == (((4, 10),), 40, ((0.0, 0.0, 160.0, 64.0),))
    assert [image.image for image in probe(FakeAdapter()).images] == list(IMAGE_SIZES)


def test_a_refused_image_is_a_row_with_the_reason() -> None:
    images = probe(Picky(), [(600, 700), (64, 64)]).images
    assert images[0].problem == "Too large. Shrink it."
    assert (images[0].resized, images[0].tokens, images[0].grids) == (None, 0, ())
    assert images[1].problem is None


def test_a_refused_trial_is_the_users_error() -> None:
    with pytest.raises(ImageError, match="Too large"):
        probe(Picky(most_pixels=100))


@pytest.mark.parametrize("adapter", [FakeAdapter(coarse=True), Picky()])
def test_reports_are_json(adapter: FakeAdapter) -> None:
    for report in (probe(adapter), describe(adapter)):
        assert json.loads(json.dumps(asdict(report)))


def test_what_sizes_a_consumer_is_described() -> None:
    adapter = FakeAdapter(coarse=True)
    report = describe(adapter)
    assert report.info is adapter.info
    assert report.channels == 2 * 3 * 2
    assert report.parameters == sum(parameter.numel() for parameter in adapter.model.parameters())
    assert (report.decoder, report.plugin, report.checkpoints) == (None, None, ())
    assert (report.published, report.forward) == (False, None)
    assert report.decoder_parameters == 7_182_785 + 576 * report.channels


@pytest.mark.parametrize("rows", [0, 65])
def test_a_row_belongs_to_a_token_of_text(rows: int) -> None:
    with pytest.raises(
        OptionError, match=rf"{rows} rows of 64 tokens of text are impossible: .* Give at least one row"
    ):
        Trial(rows=rows)


def test_options_are_the_keywords_that_the_adapter_keeps() -> None:
    adapter = FakeAdapter()
    adapter.info = replace(adapter.info, options=(("most_pixels", 7),))
    assert dict(describe(adapter).info.options) == {"most_pixels": 7}


def test_towers_of_all_families_have_the_same_words() -> None:
    cases: list[tuple[str, dict[str, int]]] = [
        ("Qwen2VL", {"depth": 32, "width": 1280, "heads": 16, "patch": 14, "merge": 2}),
        ("Qwen3VL", {"depth": 27, "width": 1152, "heads": 16, "patch": 16, "merge": 2}),
        ("Llava", {"depth": 24, "width": 1024, "heads": 16, "patch": 14}),
        ("DeepseekVL", {"depth": 12, "width": 768, "heads": 12, "patch": 16}),
        ("Fuyu", {"patch": 30}),
    ]
    for family, sizes in cases:
        (tower,) = towers(getattr(transformers, f"{family}Config")())
        assert tower.sizes == sizes, family
        assert not set(tower.more) & {"depth", "num_heads", "patch_size", "output_attentions", "num_labels"}, family


def test_a_model_may_have_two_towers_or_none() -> None:
    assert [tower.name for tower in towers(transformers.DeepseekVLHybridConfig())] == [
        "vision_config",
        "high_res_vision_config",
    ]
    assert list(towers(transformers.Qwen2Config())) == []
    assert list(towers(None)) == []


def test_two_opinions_on_a_special_token_are_two_rows() -> None:
    config = transformers.LlavaConfig(image_token_index=7, text_config={"model_type": "llama", "eos_token_id": [2, 3]})
    model = SimpleNamespace(config=config, generation_config=SimpleNamespace(to_dict=lambda: {"eos_token_id": 3}))
    found = special_tokens(model, SimpleNamespace(image_token_id=8, tokenizer=None))
    assert [(token.role, token.id, token.said_by) for token in found] == [
        ("image", 7, ("config",)),
        ("image", 8, ("processor",)),
        ("eos", 2, ("text config",)),
        ("eos", 3, ("text config", "generation")),
        ("bos", 1, ("text config",)),
    ]


def test_a_name_of_an_adapter_is_described_without_loading(site: Site) -> None:
    site.add_plugin("acme-toy", version="2.3")
    report = describe_entry("toy")
    assert report is not None
    assert (report.plugin, report.distribution, report.version, report.state) == ("toy", "acme-toy", "2.3", "ready")
    assert (report.target, report.checkpoints, report.embedded) == ("toy_adapter:ToyAdapter", ("acme/toy-1b",), ())
    assert describe_entry("no_such_adapter") is None


def test_of_two_adapters_with_one_name_the_working_one_is_described(site: Site) -> None:
    site.add_plugin("b-toy")
    site.add_plugin("a-toy")
    report = describe_entry("toy")
    assert report is not None
    assert (report.distribution, report.state) == ("a-toy", "ready")


def test_a_directory_is_a_checkpoint_whatever_its_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_plugin("acme-toy")
    monkeypatch.chdir(site.path)
    (site.path / "toy").mkdir()
    assert describe_entry("toy") is None


def test_an_adapter_is_described_without_torch() -> None:
    code = "import sys, vlm_adapters.inspection.adapter as e; e.describe_entry('x'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
