"""Which samples go through the backbone together."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vlm_adapters.data.sample import Sample
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training.composition import MOST_PADDED, MOST_PIXELS, MOST_SHARING, Composition


def sample(name: str, colour: str = "red", size: tuple[int, int] = (8, 6), text: str = "a dot") -> Sample:
    image = Image.new("RGB", size, colour)
    return Sample(id="", image_id=name, text=text, phrases=(), image=image, masks=np.zeros((0, size[1], size[0]), bool))


def test_a_family_that_cannot_share_an_image_takes_samples_one_by_one_on_a_processor() -> None:
    composition = Composition.of(FakeAdapter())
    assert composition == Composition(shares=False, pads=False)
    assert composition.batches([sample("1")] * 3) == [(0,), (1,), (2,)]


def test_sentences_about_one_image_run_together_whatever_stands_between_them() -> None:
    samples = [sample(name) for name in ("1", "1", "2", "1", "3", "2", "3")]
    assert Composition(shares=True, pads=False).batches(samples) == [(0, 1, 3), (2, 5), (4, 6)]


def test_images_of_one_name_and_other_pixels_are_not_one() -> None:
    samples = [sample("1"), sample("1", "blue"), sample("1", "blue", (6, 8)), sample("1"), sample("1", "blue")]
    assert Composition(shares=True, pads=False).batches(samples) == [(0, 3), (1, 4), (2,)]


def test_many_sentences_about_one_image_are_divided() -> None:
    batches = Composition(shares=True, pads=False).batches([sample("1")] * (2 * MOST_SHARING + 1))
    assert [len(batch) for batch in batches] == [MOST_SHARING, MOST_SHARING, 1]


def test_images_of_similar_size_run_beside_each_other_on_an_accelerator() -> None:
    sizes = [(10, 10), (40, 40), (11, 10), (40, 41), (10, 12)]
    samples = [sample(str(index), size=size) for index, size in enumerate(sizes)]
    assert Composition(shares=False, pads=True).batches(samples) == [(0, 2, 4), (1, 3)]


def test_what_runs_beside_each_other_is_bounded_in_number_and_pixels() -> None:
    small = Composition(shares=False, pads=True).batches([sample("1")] * (MOST_PADDED + 3))
    assert [len(batch) for batch in small] == [MOST_PADDED, 3]
    large = [sample("1", size=(2000, MOST_PIXELS // 5000))] * 5
    assert [len(batch) for batch in Composition(shares=False, pads=True).batches(large)] == [2, 2, 1]


def test_every_sample_is_in_one_batch_whatever_the_set() -> None:
    random = np.random.default_rng(5)
    samples = [sample(str(random.integers(4)), size=(int(random.integers(1, 60)), 9)) for _ in range(40)]
    for composition in (Composition(shares=True, pads=True), Composition(shares=False, pads=True)):
        batches = composition.batches(samples)
        assert sorted(position for batch in batches for position in batch) == list(range(40))
        assert batches == composition.batches(samples)
