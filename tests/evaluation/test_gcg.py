"""Scores of captions with grounded phrases, against values by hand and against pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlm_adapters.data.rle import encode_rle
from vlm_adapters.errors import DataError
from vlm_adapters.evaluation import GroundedCaption, gcg_scores

Pair = tuple[GroundedCaption, GroundedCaption]


def row(*spans: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks of one row of ten pixels, each true from `start` to `end`."""
    masks = np.zeros((len(spans), 1, 10), np.bool_)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[:, start:end] = True
    return masks


def same(true: str, found: str) -> float:
    return float(true == found)


def caption(words: str, *spans: tuple[int, int]) -> GroundedCaption:
    return GroundedCaption(words.split(), row(*spans))


def test_what_equals_the_truth_has_full_scores() -> None:
    truth = caption("star cross", (0, 4), (5, 9))
    scores = gcg_scores([(truth, truth)], same)
    assert (scores.ap50, scores.miou, scores.recall, scores.images) == (1.0, 1.0, 1.0, 1)


def test_masks_are_paired_by_their_overlap_and_not_by_their_order() -> None:
    # IoU of the pairs: 4/5 and 2/4; of the first found with the second true mask: 0
    pair = caption("cross star", (5, 10), (0, 2)), caption("star cross", (0, 4), (6, 10))
    scores = gcg_scores([pair], same)
    assert scores.miou == pytest.approx((4 / 5 + 2 / 4) / 2)
    assert scores.recall == 1.0


def test_only_masks_that_overlap_are_in_the_mean_of_an_image() -> None:
    pair = caption("star cross", (0, 4), (8, 9)), caption("star cross", (0, 4), (5, 7))
    assert gcg_scores([pair], same).miou == 1.0


def test_an_image_without_a_pair_counts_nothing() -> None:
    truth = caption("star", (0, 4))
    nothing = GroundedCaption((), np.zeros((0, 1, 10), np.bool_))
    scores = gcg_scores([(truth, truth), (nothing, truth)], same)
    assert (scores.miou, scores.recall, scores.images) == (0.5, 0.5, 2)


def test_the_recall_needs_words_that_are_alike() -> None:
    pair = caption("dog cross", (0, 4), (5, 9)), caption("star cross", (0, 4), (5, 8))
    similar = {("star", "dog"): 0.49, ("cross", "cross"): 1.0}
    scores = gcg_scores([pair], lambda true, found: similar[true, found], least_similarity=0.5)
    assert scores.recall == 0.0  # the best overlap is that of the dog, and there GLaMM stops
    assert gcg_scores([pair], lambda true, found: similar[true, found], least_similarity=0.4).recall == 1.0


def test_the_recall_needs_masks_that_overlap_by_half() -> None:
    pair = caption("star cross", (0, 2), (5, 6)), caption("star cross", (0, 4), (5, 8))  # IoU 1/2 and 1/3
    assert gcg_scores([pair], same).recall == 0.5
    assert gcg_scores([pair], same, iou=0.3).recall == 1.0


def test_the_average_precision_of_one_right_mask_among_two() -> None:
    # hit, miss of three true masks: precision 1 up to a recall of 1/3, that is at 34 of 101 recalls
    pair = caption("star dog", (0, 4), (4, 5)), caption("star cross ring", (0, 4), (5, 7), (8, 10))
    assert gcg_scores([pair], same).ap50 == pytest.approx(34 / 101)


def test_without_images_there_is_nothing() -> None:
    scores = gcg_scores([], same)
    assert np.isnan(scores.ap50)
    assert (scores.miou, scores.recall, scores.images) == (0.0, 0.0, 0)


def by_coco(pairs: Sequence[Pair]) -> float:
    """AP50 as GLaMM's evaluation computes it: COCO's, with the score 1 for every mask."""

    def entries(side: int) -> list[dict[str, Any]]:
        found = []
        for image, pair in enumerate(pairs):
            for mask in pair[side].masks:
                packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                area, box = float(coco_mask.area(packed)), coco_mask.toBbox(packed).tolist()
                entry = {"id": len(found) + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "score": 1.0}
                found.append({**entry, "segmentation": packed, "area": area, "bbox": box})
        return found

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        images = [{"id": image, "height": 24, "width": 30} for image in range(len(pairs))]
        truth.dataset = {"images": images, "annotations": entries(1), "categories": [{"id": 1}]}
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([{**entry, "bbox": []} for entry in entries(0)]), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[1])


@pytest.mark.parametrize("seed", range(6))
def test_the_average_precision_is_that_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> NDArray[np.bool_]:
        masks = np.zeros((count, 24, 30), np.bool_)
        for mask in masks:
            top, left = rng.integers(0, 16), rng.integers(0, 20)
            mask[top : top + rng.integers(3, 9), left : left + rng.integers(3, 11)] = True
        return masks

    pairs = []
    for count in rng.integers(1, 8, size=12):
        true = boxes(int(count))
        kept = np.roll(true[rng.random(count) < 0.8], rng.integers(0, 3), axis=2)
        found = np.concatenate([kept, kept[:1], boxes(int(rng.integers(0, 3)))])
        found = found[rng.permutation(len(found))]
        pairs.append(tuple(GroundedCaption(["it"] * len(masks), masks) for masks in (found, true)))
    scores = gcg_scores(pairs, same)
    assert 0 < scores.ap50 < 1
    assert scores.ap50 == pytest.approx(by_coco(pairs), abs=1e-9)


def test_run_lengths_are_decoded() -> None:
    masks = row((0, 4), (5, 9))
    read = GroundedCaption.of_run_lengths(["star", "cross"], [encode_rle(mask) for mask in masks])
    assert (read.masks == masks).all()


def test_masks_of_two_sizes_are_refused() -> None:
    truth, larger = caption("star", (0, 4)), GroundedCaption(["star"], np.ones((1, 2, 10), np.bool_))
    with pytest.raises(DataError, match="the true ones are"):
        gcg_scores([(larger, truth)], same)
    with pytest.raises(DataError, match="need one size"):
        GroundedCaption.of_run_lengths(["a", "b"], [encode_rle(truth.masks[0]), encode_rle(larger.masks[0])])
    with pytest.raises(DataError, match="2 phrases need as many masks"):
        GroundedCaption(["a", "b"], truth.masks)
