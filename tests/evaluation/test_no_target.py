"""Phrases without a target: gIoU, cIoU, N-acc and T-acc as published for gRefCOCO, and ReasonSeg's ignored pixels."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.evaluation.fingerprint import EvaluationSettings
from vlm_adapters.evaluation.record import Record, records_of
from vlm_adapters.evaluation.run import evaluate
from vlm_adapters.evaluation.summary import METRICS, NO_TARGET_METRICS, summarise
from vlm_adapters.prompt import Phrase
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vlm_adapters.grounding.base import Grounder

    Mask = NDArray[np.bool_]


def record(
    found: Mask, truth: Mask, *, index: int = 0, tags: tuple[str, ...] = (), ignored: Mask | None = None
) -> Record:
    """The record of the one phrase of a sample."""
    height, width = truth.shape
    sample = Sample(
        id=f"s{index}",
        image_id=f"p{index}",
        text="a cat",
        phrases=(Phrase("a cat", 0, 5),),
        phrase_tags=(tags,) if tags else (),
        image=Image.new("RGB", (width, height)),
        masks=truth[None],
        ignored=ignored,
    )
    return records_of(index, sample, [sample.prompt], {"mask": found[None]})[0]


def first(pixels: int) -> Mask:
    """A mask of 4 x 5 of which the first pixels are set."""
    return (np.arange(20) < pixels).reshape(4, 5)


def values(records: list[Record], group: str = "all") -> dict[str, float | None]:
    return {number.metric: number.value for number in summarise(records, resamples=10) if number.group == group}


def test_six_phrases_counted_by_hand() -> None:
    pairs = [
        (first(5), first(10)),  # IoU 1/2
        (first(10), first(10)),  # 1
        (first(0), first(4)),  # 0: a target that is said to be absent
        (first(0), first(0)),  # 1: rightly nothing
        (first(6), first(0)),  # 0: six pixels of nothing
        (first(1), first(0)),  # 0
    ]
    found = values([record(*pair, index=index) for index, pair in enumerate(pairs)])
    assert found["gIoU"] == pytest.approx((0.5 + 1 + 0 + 1 + 0 + 0) / 6)
    assert found["mIoU"] == found["gIoU"]
    assert found["cIoU"] == pytest.approx((5 + 10) / (10 + 10 + 4 + 0 + 6 + 1))
    assert found["N-acc"] == pytest.approx(1 / 3)
    assert found["T-acc"] == pytest.approx(2 / 3)
    assert list(found) == [*METRICS, *NO_TARGET_METRICS]


def published(pairs: list[tuple[Mask, Mask]]) -> dict[str, float]:
    """The evaluation of gRefCOCO, by its published rules: a sample at a time, in counters.

    Its code divides N-acc by one sample more than there are, and computes as T-acc another quotient; both are here as
    the paper defines them, N-acc = TP / (TP + FN) and T-acc = TN / (TN + FP), where positive is "no target".
    """
    total = intersections = unions = 0.0
    counts = dict.fromkeys(("TP", "TN", "FP", "FN"), 0)
    for prediction, truth in pairs:
        says_nothing = not prediction.any()
        intersection, union = np.sum(np.logical_and(prediction, truth)), np.sum(np.logical_or(prediction, truth))
        if not truth.any():
            counts["TP" if says_nothing else "FN"] += 1
            total += 1.0 if says_nothing else 0.0
            unions += 0 if says_nothing else union
        else:
            counts["FP" if says_nothing else "TN"] += 1
            total += 0 if says_nothing else intersection / union
            intersections += 0 if says_nothing else intersection
            unions += union
    return {
        "gIoU": total / len(pairs),
        "cIoU": intersections / unions,
        "N-acc": counts["TP"] / (counts["TP"] + counts["FN"]),
        "T-acc": counts["TN"] / (counts["TN"] + counts["FP"]),
    }


@pytest.mark.parametrize("seed", range(20))
def test_random_masks_have_the_values_of_the_published_evaluation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.choice([0.0, 0.3, 0.9], (40, 2))
    pairs = [(rng.random((9, 7)) < found, rng.random((9, 7)) < true) for found, true in shares]
    found = values([record(*pair, index=index) for index, pair in enumerate(pairs)])
    assert {name: found[name] for name in ("gIoU", "cIoU", "N-acc", "T-acc")} == pytest.approx(published(pairs))


def test_a_group_without_such_phrases_has_no_accuracy_of_them() -> None:
    records = [
        record(first(5), first(10), tags=("target",)),
        record(first(0), first(0), index=1, tags=("no target",)),
    ]
    target, nothing = values(records, "target"), values(records, "no target")
    assert (target["N-acc"], target["T-acc"], nothing["N-acc"], nothing["T-acc"]) == (None, 1, 1, None)
    assert (target["P@0.5"], nothing["cIoU"]) == (1, None)


def test_a_set_whose_phrases_all_have_targets_has_no_such_rows() -> None:
    assert list(values([record(first(0), first(10))])) == list(METRICS)


def with_ignored(prediction: Mask, truth: Mask, ignored: Mask) -> tuple[int, int]:
    """Intersection and union of class 1 in the published evaluation of ReasonSeg: by histograms of labels."""
    output, target = prediction.astype(int), truth.astype(int)
    target[ignored] = 255
    output[target == 255] = 255
    both = np.bincount(output[output == target], minlength=256)[1]
    return int(both), int(np.bincount(output.ravel())[1] + np.bincount(target.ravel())[1] - both)


@pytest.mark.parametrize("seed", range(10))
def test_ignored_pixels_count_neither_as_found_nor_as_missed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, truth, ignored = rng.random((3, 12, 9)) < 0.5
    agreement = record(found, truth, ignored=ignored).found["mask"]
    assert (agreement.intersection, agreement.union) == with_ignored(found, truth, ignored)
    assert agreement.area == (found & ~ignored).sum()
    assert record(found, truth, ignored=ignored).true_area == (truth & ~ignored).sum()
    elsewhere = record(found ^ ignored, truth, ignored=ignored).found["mask"]
    assert {**asdict(elsewhere), "counts": ""} == {**asdict(agreement), "counts": ""}


class WithAbsentColour(Dataset):
    """Squares of which the first one is on every other image only."""

    def __init__(self, squares: Dataset) -> None:
        self._squares = squares

    @property
    def source(self) -> str:
        return "absent"

    def __len__(self) -> int:
        return len(self._squares)

    def sample(self, index: int) -> Sample:
        sample = self._squares.sample(index)
        if index % 2:
            return sample
        pixels, masks = np.asarray(sample.image).copy(), sample.masks.copy()
        pixels[masks[0]], masks[0] = 0, False
        return Sample(**{**vars(sample), "image": Image.fromarray(pixels), "masks": masks})


def test_the_card_has_the_values_and_says_what_they_mean(
    grounder: Grounder, squares: type[Dataset], tmp_path: Path
) -> None:
    settings = EvaluationSettings(protocol="isolated")
    grounder.adapter = FakeAdapter()
    card = evaluate(grounder, WithAbsentColour(squares(4)), settings, tmp_path)  # type: ignore[call-arg]
    # two phrases name nothing and nothing is found; 4 x 4 and 6 x 6 pixels are found a column too far to the left
    assert card.number("all", "mask", "gIoU").value == pytest.approx((2 * 1 + 2 * 12 / 20 + 4 * 30 / 42) / 8)
    assert card.number("all", "mask", "cIoU").value == pytest.approx((2 * 12 + 4 * 30) / (2 * 20 + 4 * 42))
    assert [card.number("all", "mask", metric).value for metric in ("N-acc", "T-acc")] == [1, 1]
    written = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert {number["metric"] for number in written["numbers"]} == {*METRICS, *NO_TARGET_METRICS}
    page = (tmp_path / "card.md").read_text(encoding="utf-8")
    for name in NO_TARGET_METRICS:
        assert name in written["rules"]
        assert f"| {name} | " in page
        assert f"* *{name}*: {written['rules'][name]}." in page
