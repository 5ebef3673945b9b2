"""The card holds what a reader needs, and says it in JSON and on a page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from vlm_adapters.data.dataset import Dataset, Problem
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.errors import OptionError
from vlm_adapters.evaluation.card import Card, Outcome
from vlm_adapters.evaluation.fingerprint import EvaluationSettings, RunFingerprint, installed_versions
from vlm_adapters.evaluation.run import Evaluation
from vlm_adapters.evaluation.summary import METRICS
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.limits import plain
from vlm_adapters.testing.fakes import load_fake

if TYPE_CHECKING:
    from vlm_adapters.grounding.base import Grounder

SquaresOf = Callable[..., Dataset]

COMMAND = "adapters evaluate 'a model' scenes:count=3 --protocol packed"
SETTINGS = EvaluationSettings(model="a model", protocol="packed", batch_size=2, seed=5, command=COMMAND)


@pytest.fixture
def fingerprint(tmp_path: Path) -> RunFingerprint:
    vlm = GroundedVLM.untrained(load_fake(), base_width=4)
    vlm.save_pretrained(tmp_path / "decoder")
    settings = EvaluationSettings(model=str(tmp_path / "decoder"), protocol="packed")
    return RunFingerprint.of(settings, vlm, Scenes(3))


@pytest.fixture
def card(fingerprint: RunFingerprint, grounder: Grounder, squares: SquaresOf) -> Card:
    batch = Evaluation(grounder, squares(3, broken=[1]), "packed", 3).batch(0)
    problems = tuple(problem for _, problem in batch.skipped)
    return Card.of(SETTINGS, fingerprint, Outcome(batch.records, problems, left_out=4), processes=2)


def test_the_fingerprint_says_how_the_model_was_loaded() -> None:
    settings = replace(SETTINGS, attn_implementation="eager", quantization="nf4")
    vlm = GroundedVLM.untrained(load_fake(), base_width=4)
    fingerprint, plain = (RunFingerprint.of(each, vlm, Scenes(3)) for each in (settings, SETTINGS))
    assert fingerprint.differences(asdict(plain)) == [
        "attn_implementation: None there, 'eager' here",
        "quantization: None there, 'nf4' here",
    ]


def test_the_fingerprint_names_the_weights_by_their_digests(fingerprint: RunFingerprint, tmp_path: Path) -> None:
    expected = hashlib.sha256((tmp_path / "decoder" / "model.safetensors").read_bytes()).hexdigest()
    assert fingerprint.digests["decoder/model.safetensors"] == expected
    assert fingerprint.digests["backbone"] == load_fake().info.fingerprint
    assert fingerprint.data == "scenes:count=3,seed=0,first=0"
    assert fingerprint.data_fingerprint == Scenes(3).fingerprint()
    assert (fingerprint.samples, fingerprint.protocol, fingerprint.sentences) == (3, "packed", None)
    assert fingerprint.versions == installed_versions()
    assert set(fingerprint.versions) >= {"vlm-adapters", "python", "torch", "transformers"}


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
    assert content["command"] == COMMAND
    assert content["fingerprint"]["digests"] == dict(card.fingerprint.digests)
    assert content["fingerprint"]["data_fingerprint"] == card.fingerprint.data_fingerprint
    value = next(one["value"] for one in content["numbers"] if one["group"] == "all" and one["metric"] == "mIoU")
    page = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"| mIoU | {value:.4f} [{value:.4f}, {value:.4f}] |" in page
    for words in (COMMAND, "## stuff: 2 phrases", "* in squares.jsonl:2: Its mask is torn.", *METRICS):
        assert words in page
    for digest in card.fingerprint.digests.values():
        assert digest in page
    assert f"| fingerprint of the data | {card.fingerprint.data_fingerprint} |" in page
    assert "numpy.random.default_rng(5)" in page
    assert "| sentences | one text per sample: none to choose |" in page


def test_a_run_without_phrases_has_a_card_without_numbers(fingerprint: RunFingerprint) -> None:
    card = Card.of(SETTINGS, fingerprint, Outcome(()), processes=1)
    assert (card.phrases, card.numbers) == (0, ())
    assert "## What was run" in card.markdown()


def test_a_run_without_a_command_has_a_page_without_one(fingerprint: RunFingerprint) -> None:
    card = Card.of(replace(SETTINGS, command=None), fingerprint, Outcome(()), processes=1)
    assert card.command is None
    assert "```" not in card.markdown()


def test_settings_that_cannot_be_used_are_refused() -> None:
    for wrong in ({"protocol": "loose"}, {"batch_size": 0}, {"seed": -1}):
        with pytest.raises(OptionError):
            replace(SETTINGS, **wrong)


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "|\n# head",
    "\\| x",
    "a | b",
    "```\n# head",
    "[a](javascript:alert(1))",
    "![a](https://example.org/x.png)",
    "[a]: https://example.org",
    "&lt;b&gt; &amp;",
    "**bold** _it_ __init__ ~~gone~~",
    "\x1b[31m\u202e",
    "- # 1. > x",
    "    code",
    "a\\",
    "***",
    "~~~",
)
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=[]), min_size=1, max_size=20))


class Page(HTMLParser):
    """The tags of a page, and the texts between them."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))

    def handle_starttag(self, tag: str, *_: object) -> None:
        self.tags.append(tag)
        self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tag=TEXTS, place=TEXTS, message=TEXTS, data=TEXTS, command=TEXTS)
def test_texts_of_others_are_shown_letter_by_letter_and_make_no_markup(
    card: Card, tag: str, place: str, message: str, data: str, command: str
) -> None:
    def filled(tag: str, place: str, message: str, data: str, command: str) -> str:
        numbers = tuple(replace(number, group=tag if number.group != "all" else "all") for number in card.numbers)
        return replace(
            card,
            command=command,
            numbers=numbers,
            skipped=(Problem(place, message),),
            fingerprint=replace(card.fingerprint, data=data),
        ).markdown()

    assume(tag != "all")
    hostile, expected = Page(filled(tag, place, message, data, command)), Page(filled("t", "p", "m", "d", "c"))
    assert hostile.tags == expected.tags
    shown = [" ".join(cell.split()) for cell in hostile.cells]
    for text in (data, command, f"in {plain(place)}: {plain(message)}"):
        assert " ".join(plain(text).split()) in shown
