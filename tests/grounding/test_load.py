"""Grounders loaded by the name of a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, DecoderError, OptionError
from vlm_adapters.grounding import load
from vlm_adapters.grounding.boxes import BoxGrounder
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.grounding.load import has_decoder, load_grounder

TINY = "tiny-qwen2_5_vl"


@pytest.fixture(scope="module")
def undecoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the embedded checkpoint without decoder or profile."""
    folder = tmp_path_factory.mktemp("checkpoint") / "copy"
    shutil.copytree(embedded_checkpoints()[TINY], folder, ignore=shutil.ignore_patterns("decoder", "head_profile.json"))
    return folder


def test_a_model_with_a_decoder_uses_it_by_default() -> None:
    assert isinstance(load_grounder(TINY), GroundedVLM)
    assert isinstance(load_grounder(TINY, method="decoder"), GroundedVLM)
    by_heads = load_grounder(TINY, method="heads")
    assert isinstance(by_heads, HeadGrounder)
    assert by_heads.profile.samples == 100


def test_the_folder_of_a_decoder_has_one_and_that_of_a_checkpoint_has_none(undecoded: Path, tmp_path: Path) -> None:
    assert has_decoder(embedded_checkpoints()[TINY] / "decoder")
    assert not has_decoder(undecoded)
    assert not has_decoder(tmp_path)
    assert not has_decoder("acme/vlm-7b")
    (tmp_path / "config.json").write_text("[1, 2]")
    assert not has_decoder(tmp_path)


def test_a_decoder_in_the_folder_of_a_backbone_reads_that_backbone_whatever_it_was_trained_on(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(embedded_checkpoints()["tiny-llava"], copy)
    config = copy / "decoder" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"tiny-llava"', '"acme/elsewhere"'), encoding="utf-8")
    assert load_grounder(copy).adapter.info.checkpoint == str(copy)


def test_a_decoder_in_a_folder_that_is_no_backbone_reads_the_one_that_its_config_names(tmp_path: Path) -> None:
    shutil.copytree(embedded_checkpoints()["tiny-llava"] / "decoder", tmp_path / "decoder")
    assert load_grounder(tmp_path).adapter.info.checkpoint == str(embedded_checkpoints()["tiny-llava"])


def test_heads_are_chosen_on_the_spot_where_there_is_no_profile(undecoded: Path) -> None:
    grounder = load_grounder(undecoded, method="heads")
    assert isinstance(grounder, HeadGrounder)
    assert (grounder.profile.source, grounder.profile.samples, grounder.profile.criterion) == ("scenes", 16, "iou")
    scene = Scenes(1, seed=HELD_OUT_SEED)[0]
    found = grounder.ground_all([scene.prompt])[0]
    assert found.method == "heads"
    assert any(phrase.box for phrase in found.phrases)
    assert not (undecoded / "head_profile.json").exists()


def test_a_profile_beside_a_checkpoint_is_used_unless_another_is_given(undecoded: Path, tmp_path: Path) -> None:
    content = json.loads((embedded_checkpoints()[TINY] / "head_profile.json").read_text())
    folder = shutil.copytree(undecoded, tmp_path / "copy")
    for path, samples in ((folder / "head_profile.json", 7), (tmp_path / "mine.json", 8)):
        path.write_text(json.dumps({**content, "samples": samples}))
    beside = load_grounder(folder, method="heads")
    named = load_grounder(folder, profile=tmp_path / "mine.json")
    assert isinstance(beside, HeadGrounder)
    assert isinstance(named, HeadGrounder)
    assert (beside.profile.samples, named.profile.samples) == (7, 8)


def test_a_profile_means_the_heads_even_where_there_is_a_decoder() -> None:
    assert isinstance(load_grounder(TINY, profile=embedded_checkpoints()[TINY] / "head_profile.json"), HeadGrounder)


def test_a_model_that_can_point_is_asked_before_heads_are_tried(undecoded: Path, tmp_path: Path) -> None:
    assert isinstance(load_grounder(undecoded), BoxGrounder)
    assert isinstance(load_grounder(TINY, method="box"), BoxGrounder)
    (tmp_path / "head_profile.json").write_text((embedded_checkpoints()[TINY] / "head_profile.json").read_text())
    assert isinstance(load_grounder(undecoded, profile=tmp_path / "head_profile.json"), HeadGrounder)


def test_a_model_that_is_not_declared_to_point_gives_masks_by_heads(
    undecoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "can_point", lambda _: False)
    assert isinstance(load_grounder(undecoded), HeadGrounder)


def test_mistakes_are_refused(undecoded: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"Unknown method 'magic'\. Use one of auto, decoder, box, heads"):
        load_grounder(TINY, method="magic")
    with pytest.raises(OptionError, match="is for the heads and the boxes, and the method is 'decoder'"):
        load_grounder(TINY, method="decoder", profile="head_profile.json")
    with pytest.raises(OptionError, match="Boxes that are filled read no head profile"):
        load_grounder(TINY, method="box", profile="head_profile.json")
    with pytest.raises(CheckpointError, match="is not a decoder's config"):
        load_grounder(undecoded, method="decoder")
    with pytest.raises(CheckpointError, match="No head profile can be read"):
        load_grounder(TINY, profile=tmp_path / "none.json")
    with pytest.raises(CheckpointError, match="No checkpoint 'nowhere'"):
        load_grounder("nowhere")
    content = json.loads((embedded_checkpoints()[TINY] / "head_profile.json").read_text())
    content["backbone"]["model_type"] = "llava"
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(DecoderError, match="is of llava"):
        load_grounder(TINY, profile=tmp_path / "other.json")


def test_a_profile_that_has_no_heads_is_refused_beside_a_checkpoint_and_given(undecoded: Path, tmp_path: Path) -> None:
    content = json.loads((embedded_checkpoints()[TINY] / "head_profile.json").read_text())
    folder = shutil.copytree(undecoded, tmp_path / "copy")
    for path in (folder / "head_profile.json", tmp_path / "none.json"):
        path.write_text(json.dumps({**content, "heads": []}))
    with pytest.raises(DecoderError, match=r"says that none of its heads follows phrases.*Train a decoder"):
        load_grounder(folder, method="heads")
    with pytest.raises(DecoderError, match="says that none of its heads follows phrases"):
        load_grounder("nowhere", profile=tmp_path / "none.json")  # before the model is looked for
