"""A grounded backbone on disk: what is written, what comes back, and every way in which it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError

from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder import checkpoint as checkpoint_module
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import AdapterError, CheckpointError, DecoderError, OptionError, OutputError
from vlm_adapters.grounding import stored
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.registry.load_options import NEVER_FROM_A_FILE
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from conftest import FakePlugin

SOURCE: dict[str, Any] = {"checkpoint": "acme/fake-1b", "revision": "abc123", "options": (("min_pixels", 49),)}

TOKEN = "hf_secret"


def backbone(**info: Any) -> FakeAdapter:
    adapter = FakeAdapter()
    adapter.info = replace(adapter.info, **{**SOURCE, **info})
    return adapter


def grounded(**sizes: int) -> GroundedVLM:
    request = FeatureRequest(GridRequest(layers=[-1], heads=(0, 1), align="predictor", reduce="max"))
    unet = UNet(UNetConfig(**{"channels": 2, "base_width": 2, "depth": 2, **sizes}))
    return GroundedVLM(backbone(), MaskDecoder(unet, request))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "decoder"
    grounded().save_pretrained(folder)
    return folder


@pytest.fixture
def over_fake(saved: Path, fake: FakePlugin) -> Path:
    """A decoder whose backbone is the checkpoint of the installed fake."""
    edit(saved, lambda config: config["backbone"].update(checkpoint=fake.checkpoint, revision=None))
    return saved


def test_the_decoder_comes_back_bit_for_bit(tmp_path: Path) -> None:
    before = grounded(canvas=20)
    before.save_pretrained(tmp_path)
    after = GroundedVLM.from_pretrained(tmp_path, adapter=backbone())
    maps = torch.rand(3, 2, 5, 7)
    with torch.no_grad():
        assert torch.equal(after.decoder.unet(maps), before.decoder.unet(maps))
    assert after.decoder.unet.config == before.decoder.unet.config
    assert not after.decoder.training


def test_the_request_comes_back(saved: Path) -> None:
    request = GroundedVLM.from_pretrained(saved, adapter=backbone()).decoder.request.grids
    assert (request.layers, request.heads, request.align, request.reduce) == ((-1,), (0, 1), "predictor", "max")


def test_the_config_names_the_backbone_and_its_revision(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert config["backbone"] == {
        "checkpoint": "acme/fake-1b",
        "model_type": "fake",
        "revision": "abc123",
        "options": {"min_pixels": 49},
    }
    assert config["unet"]["channels"] == 2


def test_an_embedded_backbone_is_named_by_its_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "alias_of", {"/somewhere/tiny-fake": "tiny-fake"}.get)
    vlm = grounded()
    vlm.adapter.info = replace(vlm.adapter.info, checkpoint="/somewhere/tiny-fake")
    vlm.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["backbone"]["checkpoint"] == "tiny-fake"


def test_only_the_two_files_are_left(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_the_backbone_is_loaded_at_its_revision_where_none_is_given(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> FakeAdapter:
        calls.append((name, options))
        return backbone()

    monkeypatch.setattr(stored, "load_adapter", load)
    GroundedVLM.from_pretrained(saved, device="cpu", min_pixels=3136)
    GroundedVLM.from_pretrained(saved, revision="other")
    assert calls == [
        ("acme/fake-1b", {"revision": "abc123", "device": "cpu", "min_pixels": 3136}),
        ("acme/fake-1b", {"revision": "other", "min_pixels": 49}),
    ]


@pytest.mark.parametrize("error", [TypeError("unexpected keyword argument 'min_pixel'"), KeyError("size")])
def test_an_error_of_the_backbone_is_not_blamed_on_the_decoder(
    over_fake: Path, fake: FakePlugin, error: Exception
) -> None:
    def fail() -> FakeAdapter:
        raise error

    fake.gives(fail)
    with pytest.raises(CheckpointError, match=r"^Loading .*fake' failed with") as caught:
        GroundedVLM.from_pretrained(over_fake)
    assert caught.value.__cause__ is error


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def refused(folder: Path, adapter: FakeAdapter | None = None) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        GroundedVLM.from_pretrained(folder, adapter=adapter or backbone())
    assert len(str(caught.value)) < 1000
    return caught.value


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    error = refused(saved)
    assert isinstance(error, CheckpointError)
    assert f"No decoder can be read from {saved}" in str(error)
    assert f"it has no {missing}. " in str(error)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "nowhere")
    assert isinstance(error, CheckpointError)
    assert f"There is no decoder '{tmp_path / 'nowhere'}': no such folder" in str(error)
    assert "GroundedVLM.save_pretrained" in str(error)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00"])
def test_a_broken_config_is_reported(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    assert f"{saved / 'config.json'} is not a decoder's config: Invalid JSON" in str(refused(saved))


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x00" * 8])
def test_broken_weights_are_reported(saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").write_bytes(content)
    error = refused(saved)
    assert isinstance(error, CheckpointError)
    assert "No decoder can be read from" in str(error)


@pytest.mark.parametrize("place", [0.7, 0.9, 0.999])
def test_a_flipped_bit_of_the_weights_is_noticed(saved: Path, place: float) -> None:
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    assert f"{path} is damaged or was changed: its SHA-256 is " in str(refused(saved))


def test_json_that_is_not_the_config_of_a_decoder_is_reported(subtests: pytest.Subtests, saved: Path) -> None:
    for content in ["[]", "3", "null", '{"model_type": "qwen2_5_vl"}', '"text"']:
        with subtests.test(content=content):
            (saved / "config.json").write_text(content, encoding="utf-8")
            error = refused(saved)
            assert isinstance(error, CheckpointError)
            assert f"{saved / 'config.json'} is not a decoder's config" in str(error)


@pytest.mark.parametrize(
    ("part", "key"), [("backbone", "checkpoint"), ("backbone", "model_type"), ("backbone", "revision")]
)
def test_a_missing_key_is_named(saved: Path, part: str, key: str) -> None:
    edit(saved, lambda config: config[part].pop(key))
    assert f"is not a decoder's config: {part}.{key}: Field required" in str(refused(saved))


@pytest.mark.parametrize("part", ["backbone", "unet", "request"])
def test_a_missing_part_is_named(saved: Path, part: str) -> None:
    edit(saved, lambda config: config.pop(part))
    assert f"is not a decoder's config: {part}: Field required" in str(refused(saved))


def test_a_config_of_the_format_before_is_refused(saved: Path) -> None:
    edit(saved, lambda config: config.update(decoder=config.pop("unet")))
    assert isinstance(refused(saved), CheckpointError)
    assert "is not a decoder's config: decoder: Extra inputs are not permitted. Write it with " in str(refused(saved))


def test_what_the_caller_alone_decides_cannot_stand_in_a_file(
    subtests: pytest.Subtests, over_fake: Path, fake: FakePlugin
) -> None:
    for keyword in sorted(NEVER_FROM_A_FILE):
        with subtests.test(keyword=keyword):
            options = {**dict(SOURCE["options"]), keyword: True}
            edit(over_fake, lambda config, options=options: config["backbone"].update(options=options))
            with pytest.raises(
                CheckpointError, match=f"backbone.options: {keyword} decides how a model is loaded; a file can"
            ):
                GroundedVLM.from_pretrained(over_fake)
            assert not fake.loads


def test_what_the_caller_gives_reaches_the_backbone(over_fake: Path, fake: FakePlugin) -> None:
    given = {"device": "cpu", "dtype": "bf16", "device_map": {"": "cpu"}, "token": TOKEN, "quantization_config": "nf4"}
    edit(over_fake, lambda config: config["backbone"].update(options={}))
    fake.gives(backbone)
    GroundedVLM.from_pretrained(over_fake, **given)
    (options,) = fake.loads
    assert {name: options[name] for name in given} == given | {"dtype": "bfloat16"}


def test_options_of_loading_do_not_go_with_an_adapter_that_is_loaded(saved: Path) -> None:
    with pytest.raises(OptionError, match=r"The adapter given is loaded already\. Leave token, device out"):
        GroundedVLM.from_pretrained(saved, adapter=backbone(), token=TOKEN, device="cpu")


@pytest.mark.parametrize("part", ["unet", "request"])
def test_an_unknown_setting_is_named(saved: Path, part: str) -> None:
    edit(saved, lambda config: config[part].update(colour=3))
    assert f"is not a decoder's config: {part}.colour" in str(refused(saved))


def test_a_senseless_size_is_refused(saved: Path) -> None:
    edit(saved, lambda config: config["unet"].update(channels="many"))
    assert "unet.channels: Input should be a valid integer" in str(refused(saved))


@pytest.mark.parametrize(("field", "value"), [("align", "sideways"), ("layers", "all"), ("heads", 3)])
def test_a_senseless_request_is_refused(saved: Path, field: str, value: object) -> None:
    edit(saved, lambda config: config["request"].update({field: value}))
    assert f"is not a decoder's config: request.{field}" in str(refused(saved))


def test_another_backbone_is_refused_with_both_names(saved: Path) -> None:
    error = refused(saved, backbone(model_type="other"))
    assert isinstance(error, DecoderError)
    assert "trained on fake (acme/fake-1b), and the backbone given is other (acme/fake-1b)" in str(error)


def test_weights_of_another_size_are_refused_in_one_line(saved: Path) -> None:
    edit(saved, lambda config: config["unet"].update(base_width=4))
    error = refused(saved)
    assert isinstance(error, DecoderError)
    assert f"The weights in {saved} do not fit its config" in str(error)
    assert "\n" not in str(error)


def test_weights_of_another_depth_are_refused_in_one_line(saved: Path) -> None:
    edit(saved, lambda config: config["unet"].update(depth=4))
    error = refused(saved)
    assert re.search("do not fit its config: .*expected \\(.*found none", str(error))
    assert "\n" not in str(error)


def test_a_failure_while_saving_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        grounded().save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_others_may_read_what_was_saved(saved: Path) -> None:
    plain = saved / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in saved.iterdir()} == {plain.stat().st_mode}


def test_no_file_is_left_where_saving_the_config_fails(tmp_path: Path) -> None:
    vlm = grounded()
    vlm.adapter.info = replace(vlm.adapter.info, revision=object())  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        vlm.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
