"""The synthetic scenes: every test looks at the pixels or the words, not at how they were drawn."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from vlm_adapters.data.formats.scenes import COLOURS, DOTS, SHAPES, Scenes, named_shapes, place_words

SCENES = tuple(Scenes(40, seed=7))


def nearest_colour(rgb: np.ndarray, colours: dict[str, tuple[int, int, int]]) -> str:
    return min(colours, key=lambda name: float(np.linalg.norm(rgb - np.array(colours[name]))))


def test_the_same_index_gives_the_same_sample() -> None:
    first, second = Scenes(5, seed=3)[4], Scenes(5, seed=3)[4]
    assert first.id == second.id
    assert first.text == second.text
    assert first.phrases == second.phrases
    assert first.image.tobytes() == second.image.tobytes()
    assert np.array_equal(first.masks, second.masks)


def test_a_sample_depends_on_its_place_in_the_stream_alone() -> None:
    assert Scenes(1, seed=3, first=9)[0].image.tobytes() == Scenes(100, seed=3)[9].image.tobytes()


def test_different_seeds_give_different_scenes() -> None:
    images = {scene.image.tobytes() for seed in range(4) for scene in Scenes(5, seed=seed)}
    assert len(images) == 20


def test_a_slice_is_a_part_of_the_set_and_negative_indices_count_from_its_end() -> None:
    scenes = Scenes(10, seed=5)
    part = scenes[2:8:3]
    assert len(part) == 2
    assert [sample.text for sample in part] == [scenes[2].text, scenes[5].text]
    assert part[-1].id == scenes[5].id


def test_an_index_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError):
        Scenes(3)[3]


def test_iteration_ends_after_count_samples() -> None:
    assert len(list(Scenes(3))) == len(Scenes(3)) == 3


def test_most_pixels_of_a_mask_have_the_named_colour() -> None:
    for scene in SCENES:
        pixels = np.asarray(scene.image)
        for phrase, mask in zip(scene.phrases, scene.masks, strict=True):
            colour = nearest_colour(np.median(pixels[mask], axis=0), COLOURS | DOTS)
            assert colour == phrase.text.split()[1], scene.id


def test_the_middle_of_a_mask_has_the_colour_of_the_named_dot() -> None:
    for scene in SCENES:
        pixels = np.asarray(scene.image)
        for phrase, mask in zip(scene.phrases, scene.masks, strict=True):
            row, column = (int(axis.mean()) for axis in np.nonzero(mask))
            middle = np.median(pixels[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3), axis=0)
            words = phrase.text.split()
            expected = words[words.index("dot") - 1] if "dot" in words else words[1]
            assert nearest_colour(middle, COLOURS | DOTS) == expected, scene.id


def test_no_pixel_just_outside_all_masks_has_a_named_colour() -> None:
    for scene in SCENES:
        pixels = np.asarray(scene.image).astype(float)
        covered = scene.masks.any(0)
        grown = covered.copy()
        for down, across in itertools.product(range(-2, 3), repeat=2):
            grown |= np.roll(covered, (down, across), (0, 1))
        used = [COLOURS[phrase.text.split()[1]] for phrase in scene.phrases]
        distance = np.min([np.linalg.norm(pixels[~grown] - np.array(colour), axis=-1) for colour in used], axis=0)
        assert np.mean(distance < 45) < 0.02, scene.id


def test_masks_do_not_overlap_and_are_large_enough_to_be_seen() -> None:
    for scene in SCENES:
        assert scene.masks.sum(0).max() == 1, scene.id
        assert (scene.masks.mean((1, 2)) > 0.008).all(), scene.id


def test_spans_match_the_text_and_each_pair_of_colour_and_shape_is_unique() -> None:
    for scene in SCENES:
        for phrase in scene.phrases:
            assert scene.text[phrase.start : phrase.end] == phrase.text, scene.id
        names = [tuple(phrase.text.split()[1:3]) for phrase in scene.phrases]
        assert len(set(names)) == len(names), scene.id
        assert all(colour in COLOURS and shape in SHAPES for colour, shape in names), scene.id


def test_position_words_are_true_of_the_centroid() -> None:
    for scene in SCENES:
        for phrase, mask in zip(scene.phrases, scene.masks, strict=True):
            after = scene.text[phrase.end :].split()
            if after[:2] != ["at", "the"]:
                continue
            words = set(after[2:4]) & {"top", "bottom", "left", "right", "center"}
            down, across = (
                float(axis.mean() + 0.5) / size for axis, size in zip(np.nonzero(mask), mask.shape, strict=True)
            )
            assert ("top" in words) == (down < 1 / 3), scene.id
            assert ("bottom" in words) == (down >= 2 / 3), scene.id
            assert ("left" in words) == (across < 1 / 3), scene.id
            assert ("right" in words) == (across >= 2 / 3), scene.id
            assert words, scene.id


def test_the_middle_of_the_image_is_called_the_center() -> None:
    mask = np.zeros((30, 60), dtype=np.bool_)
    mask[14:16, 29:31] = True
    assert place_words(mask) == "at the center"


def test_sizes_and_aspects_vary_and_stay_within_bounds() -> None:
    sizes = [scene.image.size for scene in SCENES]
    assert len(set(sizes)) > 30
    assert all(180 <= side <= 320 for size in sizes for side in size)
    aspects = [width / height for width, height in sizes]
    assert min(aspects) < 0.75
    assert max(aspects) > 1.3


def test_there_are_two_to_four_objects_unless_asked_otherwise() -> None:
    assert {len(scene.phrases) for scene in SCENES} == {2, 3, 4}
    assert {len(scene.phrases) for scene in Scenes(20, objects=(1, 2))} == {1, 2}


def test_captions_name_objects_in_an_order_that_positions_do_not_predict() -> None:
    firsts = [min(range(len(scene.phrases)), key=lambda k: scene.phrases[k].start) for scene in SCENES]
    lefts = [int(np.argmin([np.nonzero(mask)[1].mean() for mask in scene.masks])) for scene in SCENES]
    agreement = np.mean([first == left for first, left in zip(firsts, lefts, strict=True)])
    assert 0.1 < agreement < 0.6


def test_many_scenes_have_two_objects_of_one_colour() -> None:
    shared = [len({phrase.text.split()[1] for phrase in scene.phrases}) < len(scene.phrases) for scene in SCENES]
    assert 0.4 < np.mean(shared) < 0.9


def test_scenes_import_no_torch() -> None:
    code = "import sys, vlm_adapters.data.formats.scenes; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("A red circle and the blue star with a black dot.", ["A red circle", "the blue star with a black dot"]),
        ("pink cross, a green square at the left", ["pink cross", "a green square"]),
        ("a cat sees red circles", ["a cat sees red circles"]),
    ],
)
def test_the_coloured_shapes_of_a_sentence_are_found(text: str, shapes: list[str]) -> None:
    assert [text[slice(*span)] for span in named_shapes(text)] == shapes


def test_the_shapes_found_in_a_caption_are_its_phrases() -> None:
    for scene in SCENES:
        assert named_shapes(scene.text) == sorted(phrase.span for phrase in scene.phrases)
