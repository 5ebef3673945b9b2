"""The record of a phrase, and that it is read as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pycocotools import mask as coco

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.errors import OutputError
from vlm_adapters.evaluation.metrics import boundary_f_score
from vlm_adapters.evaluation.protocols import find_masks, isolated
from vlm_adapters.evaluation.record import Record, read_records, records_of, write_records

if TYPE_CHECKING:
    from vlm_adapters.grounding.base import Grounder

SquaresOf = Callable[..., Dataset]


@pytest.fixture
def records(grounder: Grounder, squares: SquaresOf) -> list[Record]:
    sample = squares(3)[1]
    prompts = isolated(sample)
    return records_of(1, sample, prompts, find_masks(grounder, [prompts], 8)[0])


def test_a_square_shifted_by_one_column_counted_by_hand(records: list[Record]) -> None:
    red, green = (record.found["mask"] for record in records)
    # 4 x 4 pixels share 4 x 3; 6 x 6 share 6 x 5. The box around a square is the square.
    assert (red.area, red.intersection, red.union) == (16, 12, 20)
    assert (green.area, green.intersection, green.union) == (36, 30, 42)
    assert red.box_iou == red.iou == 12 / 20
    assert green.box_iou == green.iou == 30 / 42
    assert [record.true_area for record in records] == [16, 36]


def test_it_says_what_was_asked_and_where_it_comes_from(records: list[Record]) -> None:
    first, second = records
    assert (first.index, first.sample, first.image, first.phrase, first.phrase_id) == (1, "s1", "p1", 0, "1/red")
    assert (second.phrase, second.phrase_id, second.tags) == (1, "1/green", ("stuff", "singular"))
    assert (second.words, second.prompt, second.span) == ("a green square", "a green square", (0, 14))
    assert first.size == (12, 24)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_every_number_can_be_computed_again_from_the_kept_mask(records: list[Record], squares: SquaresOf) -> None:
    for record, truth in zip(records, squares(3)[1].masks, strict=True):
        kept = coco.decode({"size": list(record.size), "counts": record.found["mask"].counts.encode()}).astype(bool)
        assert kept.sum() == record.found["mask"].area
        assert (kept & truth).sum() == record.found["mask"].intersection
        assert (kept | truth).sum() == record.found["mask"].union
        assert boundary_f_score(kept, truth) == record.found["mask"].boundary_f


def test_records_are_the_same_after_they_were_written_and_read(records: list[Record], tmp_path: Path) -> None:
    write_records(records, tmp_path / "records.jsonl")
    assert read_records(tmp_path / "records.jsonl") == records
    lines = (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["found"]["mask"]["union"] for line in lines] == [20, 42]


def test_a_mask_that_is_empty_as_is_the_truth_agrees_with_it(squares: SquaresOf) -> None:
    sample = squares(1)[0]
    empty = np.zeros_like(sample.masks)
    blank = type(sample)(**{**vars(sample), "masks": empty})
    found = records_of(0, blank, isolated(sample), {"mask": empty})
    assert [record.final.iou for record in found] == [1.0, 1.0]


def test_any_flipped_bit_of_a_record_is_noticed_and_its_line_named(records: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(records, path)
    original = path.read_bytes()
    for bit in np.random.default_rng(5).integers(8 * len(original), size=200).tolist():
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        line = original.count(b"\n", 0, bit // 8) + 1
        with pytest.raises(OutputError, match=rf"Line {line} of .*records\.jsonl is damaged: .* run the evaluation"):
            read_records(path)
