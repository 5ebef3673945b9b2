"""The numbers of the table, counted by hand, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_adapters.evaluation.record import Agreement, Record
from vlm_adapters.evaluation.summary import METRICS, bootstrap, join_runs, summarise, tags_of


def agreement(intersection: int, union: int, *, box_iou: float = 0.0, boundary_f: float = 0.0) -> Agreement:
    return Agreement(union, intersection, union, box_iou, boundary_f, counts="")


def record(index: int, agreement: Agreement, *tags: str, image: str | None = None) -> Record:
    """A record of the one phrase of a sample."""
    return Record(
        index=index,
        sample=f"s{index}",
        image=image or f"p{index}",
        phrase=0,
        phrase_id=None,
        words="a cat",
        prompt="a cat",
        span=(0, 5),
        tags=tags,
        size=(4, 4),
        true_area=1,
        found={"mask": agreement},
    )


def values(records: list[Record], group: str = "all") -> dict[str, float | None]:
    return {number.metric: number.value for number in summarise(records, resamples=10) if number.group == group}


def test_all_metrics_of_four_phrases_counted_by_hand() -> None:
    # IoUs 1/4, 1/2, 9/10 and 1; intersections 1 + 50 + 9 + 4 = 64, unions 4 + 100 + 10 + 4 = 118.
    found = [
        record(0, agreement(1, 4, box_iou=0.5, boundary_f=0.0)),
        record(1, agreement(50, 100, box_iou=0.49, boundary_f=0.5)),
        record(2, agreement(9, 10, box_iou=0.9, boundary_f=0.5)),
        record(3, agreement(4, 4, box_iou=1.0, boundary_f=1.0)),
    ]
    assert values(found) == pytest.approx(
        {
            "cIoU": 64 / 118,
            "mIoU": (0.25 + 0.5 + 0.9 + 1) / 4,
            "P@0.5": 3 / 4,
            "P@0.6": 2 / 4,
            "P@0.7": 2 / 4,
            "P@0.8": 2 / 4,
            "P@0.9": 2 / 4,
            "Acc@0.5 of boxes": 3 / 4,
            "boundary F": 0.5,
        }
    )


def test_tags_have_numbers_of_their_own_and_those_of_narratives_come_first() -> None:
    found = [
        record(0, agreement(1, 4), "thing", "plural"),
        record(1, agreement(3, 4), "stuff", "singular"),
        record(2, agreement(4, 4), "thing", "singular", "aerial"),
    ]
    assert tags_of(found) == ["thing", "stuff", "singular", "plural", "aerial"]
    expected = {"thing": 5 / 8, "stuff": 3 / 4, "singular": 7 / 8, "plural": 1 / 4, "aerial": 1, "all": 8 / 12}
    assert {group: values(found, group)["mIoU"] for group in expected} == pytest.approx(expected)
    counts = {number.group: number.phrases for number in summarise(found, resamples=10)}
    assert counts == {"all": 3, "thing": 2, "stuff": 1, "singular": 2, "plural": 1, "aerial": 1}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_the_mean_iou_is_the_area_under_the_curve_of_recall(intersections: list[int]) -> None:
    found = [record(index, agreement(pixels, 50)) for index, pixels in enumerate(intersections)]
    thresholds = (np.arange(5000) + 0.5) / 5000
    recall = (np.array(intersections)[None] / 50 >= thresholds[:, None]).mean(axis=1)
    assert values(found)["mIoU"] == pytest.approx(recall.mean(), abs=1e-3)


def test_empty_masks_count_for_the_mean_and_for_no_pixel() -> None:
    assert values([record(0, agreement(0, 0)), record(1, agreement(1, 2))])["mIoU"] == 0.75
    assert values([record(0, agreement(0, 0)), record(1, agreement(1, 2))])["cIoU"] == 0.5
    nothing = next(number for number in summarise([record(0, agreement(0, 0))]) if number.metric == "cIoU")
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)


def test_no_phrase_has_no_numbers() -> None:
    assert summarise([]) == []


def test_an_interval_is_around_its_value_and_the_same_for_the_same_seed() -> None:
    found = [record(index, agreement(index % 11, 10)) for index in range(60)]
    one, again, other = (summarise(found, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert [number.value for number in one] == [number.value for number in other]
    assert [number.low for number in one] != [number.low for number in other]
    assert {number.metric for number in one} == set(METRICS)
    for number in one:
        assert number.value is not None
        assert number.low is not None
        assert number.high is not None
        assert number.low <= number.value <= number.high


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    # 400 phrases, half of them right: the mean has the deviation 0.5 / 20, and 95 % lie within 1.96 of it.
    right = np.repeat([0.0, 1.0], 200)
    low, high = bootstrap(right[:, None], np.ones((400, 1)), np.arange(400), seed=0, resamples=4000)
    assert low[0] == pytest.approx(0.5 - 1.96 * 0.025, abs=0.004)
    assert high[0] == pytest.approx(0.5 + 1.96 * 0.025, abs=0.004)


def test_images_are_drawn_and_not_phrases() -> None:
    # The same phrases, 100 to an image: 4 images, all wrong or all right, tell what 4 phrases tell.
    right, images = np.repeat([0.0, 0.0, 1.0, 1.0], 100), np.repeat(np.arange(4), 100)
    low, high = bootstrap(right[:, None], np.ones((400, 1)), images, seed=0, resamples=4000)
    assert (low[0], high[0]) == (0, 1)  # (1/2)**4 of the draws have none right: more than a tail of 2.5 %


def test_draws_without_a_phrase_of_the_group_do_not_count() -> None:
    # Half of the images have no such phrase; the others have it right.
    counted = np.repeat([0.0, 1.0], 3)[:, None]
    low, high = bootstrap(counted, counted, np.arange(6), seed=0, resamples=200)
    assert (low[0], high[0]) == (1, 1)


def test_the_interval_of_joined_runs_is_over_the_images_of_all() -> None:
    rng = np.random.default_rng(0)
    runs = {
        f"seed {seed}": [record(index, agreement(int(rng.integers(0, 51)), 50)) for index in range(200)]
        for seed in range(4)
    }
    joined = join_runs(runs)
    assert len({found.image for found in joined}) == 800  # the same names in every run, and other images
    one, all_of_them = (
        next(number for number in summarise(records) if number.metric == "mIoU") for records in (runs["seed 0"], joined)
    )
    means = [values(list(records))["mIoU"] for records in runs.values()]
    assert all_of_them.value == pytest.approx(np.mean(means))
    widths = [number.high - number.low for number in (one, all_of_them)]  # type: ignore[operator]
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.1)  # four times the images
