"""The card holds what a reader needs, and says it in JSON and on a page."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vlm_adapters.data.dataset import Dataset, Problem
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.evaluation.card import Card, Outcome
from vlm_adapters.evaluation.fingerprint import Pins, Settings, installed
from vlm_adapters.evaluation.run import Evaluation
from vlm_adapters.evaluation.summary import METRICS
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.testing.fakes import load_fake

if TYPE_CHECKING:
    from vlm_adapters.grounding.base import Grounder

SquaresOf = Callable[..., Dataset]

ASKED = Settings(model="a model", data="scenes:count=3", protocol="packed", batch=2, seed=5)


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    vlm = GroundedVLM.untrained(load_fake(), base_width=4)
    vlm.save_pretrained(tmp_path / "decoder")
    asked = Settings(model=str(tmp_path / "decoder"), data="scenes", protocol="packed")
    return Pins.of(asked, vlm, Scenes(3))


@pytest.fixture
def card(pins: Pins, grounder: Grounder, squares: SquaresOf) -> Card:
    batch = Evaluation(grounder, squares(3, broken=[1]), "packed", 3).batch(0)
    problems = tuple(problem for _, problem in batch.skipped)
    return Card.of(ASKED, pins, Outcome(batch.records, problems, left_out=4), processes=2)


def test_the_command_asks_for_the_same_again() -> None:
    assert shlex.split(ASKED.command)[:4] == ["adapters", "evaluate", "a model", "scenes:count=3"]
    assert "--protocol packed" in ASKED.command
    assert "--batch 2 --seed 5" in ASKED.command
    assert "--sam" not in ASKED.command


def test_the_command_and_the_pins_say_how_the_model_was_loaded() -> None:
    asked = replace(ASKED, attn_implementation="eager", quantization="nf4")
    assert "--attn-implementation eager --quantization nf4" in asked.command
    vlm = GroundedVLM.untrained(load_fake(), base_width=4)
    pins, plain = (Pins.of(each, vlm, Scenes(3)) for each in (asked, ASKED))
    assert pins.differences(asdict(plain)) == [
        "attn_implementation: None there, 'eager' here",
        "quantization: None there, 'nf4' here",
    ]


def test_pins_name_the_weights_by_their_digests(pins: Pins, tmp_path: Path) -> None:
    expected = hashlib.sha256((tmp_path / "decoder" / "model.safetensors").read_bytes()).hexdigest()
    assert pins.digests["decoder/model.safetensors"] == expected
    assert pins.digests["backbone"] == load_fake().info.fingerprint
    assert pins.data == "scenes:count=3,seed=0,first=0"
    assert pins.data_fingerprint == Scenes(3).fingerprint()
    assert (pins.samples, pins.protocol, pins.sentences) == (3, "packed", None)
    assert pins.versions == installed()
    assert set(pins.versions) >= {"vlm-adapters", "python", "torch", "transformers"}


def test_it_counts_what_was_used_skipped_and_left_out(card: Card) -> None:
    assert (card.samples, card.left_out, card.phrases, card.images, card.processes) == (2, 4, 4, 2, 2)
    assert card.skipped == (Problem("squares.jsonl:2", "Its mask is torn."),)


def test_the_digest_of_the_samples_is_over_ids_and_texts(card: Card) -> None:
    text = "a red square and a green square"
    lines = [
        ["s0", "0/red", text, 0, 12],
        ["s0", "0/green", text, 17, 31],
        ["s2", "2/red", text, 0, 12],
        ["s2", "2/green", text, 17, 31],
    ]
    expected = hashlib.sha256("".join(json.dumps(line) + "\n" for line in lines).encode()).hexdigest()
    assert card.samples_digest == expected


def test_the_numbers_are_those_of_the_squares(card: Card) -> None:
    # Red squares have 12 / 20, green ones 30 / 42, in both images: no draw of images changes that.
    number = card.number("all", "mask", "mIoU")
    assert number.value == number.low == number.high == pytest.approx((12 / 20 + 30 / 42) / 2)
    assert card.number("stuff", "mask", "cIoU").value == pytest.approx(30 / 42)
    assert card.groups == ["all", "thing", "stuff", "singular"]


def test_json_and_page_say_the_same(card: Card, tmp_path: Path) -> None:
    card.write(tmp_path)
    content = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert content["command"] == ASKED.command
    assert content["pins"]["digests"] == dict(card.pins.digests)
    assert content["pins"]["data_fingerprint"] == card.pins.data_fingerprint
    value = next(one["value"] for one in content["numbers"] if one["group"] == "all" and one["metric"] == "mIoU")
    page = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"| mIoU | {value:.4f} [{value:.4f}, {value:.4f}] |" in page
    for told in (ASKED.command, "## stuff: 2 phrases", "* squares.jsonl:2: Its mask is torn.", *METRICS):
        assert told in page
    for digest in card.pins.digests.values():
        assert digest in page
    assert f"| fingerprint of the data | {card.pins.data_fingerprint} |" in page
    assert "numpy.random.default_rng(5)" in page
    assert "| sentences | one text for a sample: none to choose |" in page


def test_a_run_without_phrases_has_a_card_without_numbers(pins: Pins) -> None:
    card = Card.of(ASKED, pins, Outcome(()), processes=1)
    assert (card.phrases, card.numbers) == (0, ())
    assert "## What was run" in card.markdown()
