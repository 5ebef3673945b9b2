"""The gallery: one file, whose numbers are those of the card, and in which nothing from outside is markup."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.evaluation.card import Card, Outcome
from vlm_adapters.evaluation.fingerprint import EvaluationSettings, RunFingerprint
from vlm_adapters.evaluation.record import Agreement, Record
from vlm_adapters.output import gallery
from vlm_adapters.output.gallery import BINS, CASES, SIDE, Case, choose_cases, page_of

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


def record(index: int, overlap: int, words: str = "a cat", tags: tuple[str, ...] = ()) -> Record:
    """A record of a mask of 10 pixels, of which so many are of the true mask of 10."""
    truth, found = np.zeros((2, 4, 10), np.bool_)
    truth[0], found[0, 10 - overlap :], found[1, : 10 - overlap] = True, True, True
    return Record(
        index=index,
        sample=f"s{index}",
        image=f"i{index}",
        phrase=0,
        phrase_id=None,
        words=words,
        prompt=f"see {words}!",
        span=(4, 4 + len(words)),
        tags=tags,
        size=(4, 10),
        true_area=10,
        found={"mask": Agreement.of(found, truth)},
    )


def card(records: list[Record], **changes: object) -> Card:
    fingerprint = RunFingerprint(
        model="tiny", checkpoint="tiny", revision=None, options={}, method="decoder", digests={}, data="made",
        data_fingerprint="0", samples=len(records), protocol="packed", sentences=None, batch_size=1, device="cpu",
        dtype="float32", attn_implementation=None, quantization=None, versions={},
    )  # fmt: skip
    made = Card.of(EvaluationSettings(protocol="packed"), fingerprint, Outcome(records), processes=1)
    return replace(made, **changes)  # type: ignore[arg-type]


def page(records: list[Record], **changes: object) -> str:
    cases = [Case(chosen, kinds, []) for chosen, kinds in choose_cases(records, 0)]
    return page_of(records, cases, card(records, **changes))


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_cases_are_random_worst_and_best_ones_each_once() -> None:
    records = [record(index, index % 11) for index in range(100)]
    chosen = choose_cases(records, 3)
    assert len({of.sample for of, _ in chosen}) == len(chosen)
    ious = {kind: [of.final.iou for of, kinds in chosen if kind in kinds] for kind in ("random", "worst", "best")}
    assert [len(of) for of in ious.values()] == [CASES] * 3
    every = sorted(of.final.iou for of in records)
    assert sorted(ious["worst"]) == every[:CASES]
    assert sorted(ious["best"]) == every[-CASES:]
    assert all("random" in kinds for _, kinds in chosen[:CASES])


def test_nothing_from_outside_is_markup() -> None:
    hostile = record(0, 5, HOSTILE, (HOSTILE,))
    hostile = replace(hostile, sample=HOSTILE)
    shown = Elements(page([hostile, record(1, 3)], warnings=(HOSTILE,)))
    assert len(shown.of("script")) == 1
    assert not shown.of("img")
    assert not [attributes for _, attributes in shown.found if any(name.startswith("on") for name in attributes)]
    assert shown.texts.count(HOSTILE) >= 4  # heading, sentence, tag, warning
    articles = {str(attributes["data-sample"]): attributes for attributes in shown.of("article")}
    assert json.loads(str(articles[HOSTILE]["data-tags"])) == [HOSTILE]


def test_only_the_script_of_the_page_may_run_and_nothing_is_fetched() -> None:
    content = page([record(0, 5)])
    policy = next(of["content"] for of in Elements(content).of("meta") if "http-equiv" in of)
    script = content.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not re.search(r"(src|href)=\"(?!data:|#|card\.|records\.)", content)


def test_the_summary_has_the_numbers_of_the_card_with_their_intervals() -> None:
    records = [record(index, index, tags=("thing",) if index % 2 else ("stuff",)) for index in range(10)]
    texts = Elements(page(records)).texts
    of_card = card(records)
    for row in of_card.rows("all"):
        assert row[0] in texts
        assert row[1] in texts
    assert {"thing", "stuff"} <= set(texts)


def test_the_bars_count_all_phrases() -> None:
    records = [record(index, 10 if index < 30 else 0) for index in range(50)]
    titles = re.findall(r"<title>IoU ([\d.]+) to ([\d.]+): (\d+)</title>", page(records))
    assert len(titles) == BINS
    assert [int(count) for *_, count in titles] == [20, *[0] * (BINS - 2), 30]


def test_it_says_how_many_phrases_it_shows() -> None:
    records = [record(index, index % 11) for index in range(100)]
    shown = len(choose_cases(records, 0))
    assert f"{shown} of 100 phrases" in page(records)


def test_a_run_without_phrases_has_a_page() -> None:
    assert "No phrase was compared." in page([])


def test_controls_are_labelled_and_the_page_has_a_dark_mode() -> None:
    content = page([record(0, 5, tags=("thing",))])
    shown = Elements(content)
    names = {of["name"] for tag in ("input", "select") for of in shown.of(tag)}
    assert names == {"words", "kind", "tag", "least", "most", "order"}
    assert len(shown.of("label")) == len(names)
    assert "prefers-color-scheme: dark" in content
    assert "width=device-width" in content


@pytest.mark.parametrize("size", [(30, 20), (3000, 500)])
def test_images_travel_within_the_page_and_are_small(size: tuple[int, int]) -> None:
    panel = gallery._panel("image", Image.new("RGB", size, "red"))  # noqa: SLF001 - what is in the page
    with Image.open(io.BytesIO(base64.b64decode(panel.source.split(",")[1]))) as image:
        assert image.size == (panel.width, panel.height)
        assert max(image.size) == min(SIDE, max(size))
