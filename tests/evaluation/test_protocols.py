"""Protocols: the model is prompted with the full text of a sample, or with every phrase alone."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.data.access import Access
from vlm_adapters.data.config import RefCocoConfig
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.decoder.sam.geometry import Frame
from vlm_adapters.decoder.sam.refiner import RefinedLogits, UntrainedRefiner
from vlm_adapters.errors import DataError, OptionError
from vlm_adapters.evaluation.protocols import PROTOCOLS, find_masks, isolated, open_for_protocol, packed, protocol_named
from vlm_adapters.geometry import place_map
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.testing.fakes import load_fake

if TYPE_CHECKING:
    from vlm_adapters.data.sample import Sample
    from vlm_adapters.grounding.base import Grounder

SquaresOf = Callable[..., Dataset]


def test_packed_prompts_with_the_full_text(squares: SquaresOf) -> None:
    (prompt,) = packed(squares(1)[0])
    assert prompt.text == "a red square and a green square"
    assert [phrase.span for phrase in prompt.phrases] == [(0, 12), (17, 31)]


def test_isolated_prompts_with_the_words_of_every_phrase_alone(squares: SquaresOf) -> None:
    prompts = isolated(squares(1)[0])
    assert [prompt.text for prompt in prompts] == ["a red square", "a green square"]
    assert [[phrase.span for phrase in prompt.phrases] for prompt in prompts] == [[(0, 12)], [(0, 14)]]


def test_a_sample_without_phrases_is_not_asked_for(squares: SquaresOf, grounder: Grounder) -> None:
    full = squares(1)[0]
    bare = type(full)(id="s", image_id="p", text="nothing", phrases=(), image=full.image, masks=full.masks[:0])
    assert [protocol(bare) for protocol in PROTOCOLS.values()] == [[], []]
    assert find_masks(grounder, [[]], 8) == [{}]


def test_masks_go_back_to_the_phrases_they_are_of(squares: SquaresOf, grounder: Grounder) -> None:
    samples = list(squares(3))
    for protocol in PROTOCOLS.values():
        prompts = [protocol(sample) for sample in samples]
        for sample, found in zip(samples, find_masks(grounder, prompts, 2), strict=True):
            assert (np.roll(found["mask"], 1, axis=2) == sample.masks).all()


def test_no_more_prompts_than_the_batch_are_computed_at_once(squares: SquaresOf, grounder: Grounder) -> None:
    samples = list(squares(3))
    find_masks(grounder, [isolated(sample) for sample in samples], 4)
    assert [len(texts) for texts in grounder.texts] == [4, 2]


class Marker:
    """Stands for Segment Anything: counts images, and refines to the right half of each."""

    def __init__(self) -> None:
        self.encoded: list[Image.Image] = []

    def encode(self, image: Image.Image) -> Image.Image:
        self.encoded.append(image)
        return image


def logits_of(mask: NDArray[np.bool_], phrases: int) -> RefinedLogits:
    """Refined logits that are 1 in a mask at the image's size and -1 elsewhere, for every phrase."""
    height, width = mask.shape
    side = max(height, width)  # a canvas on which the image keeps its size
    decoded = torch.full((phrases, side, side), -1.0)
    decoded[:, :height, :width][:, torch.from_numpy(mask)] = 1
    return RefinedLogits(decoded, Frame((height, width), side))


class RightHalf(UntrainedRefiner):
    def refine(self, image: Image.Image, logits: torch.Tensor, *_: object) -> RefinedLogits:  # type: ignore[override]
        half = np.zeros((image.height, image.width), np.bool_)
        half[:, image.width // 2 :] = True
        return logits_of(half, len(logits))


def refined(squares: SquaresOf) -> tuple[GroundedVLM, list[Sample]]:
    vlm = GroundedVLM.untrained(load_fake(), base_width=4)
    vlm.decoder.refiner = RightHalf(Marker())  # type: ignore[arg-type]
    return vlm, list(squares(2))


def test_a_decoder_with_a_refiner_gives_its_own_masks_and_the_refined_ones(squares: SquaresOf) -> None:
    vlm, samples = refined(squares)
    (found, _) = find_masks(vlm, [packed(sample) for sample in samples], 8)
    assert list(found) == ["coarse", "refined"]
    assert (found["refined"] == (np.arange(24) >= 12)[None, None]).all()
    with torch.no_grad():
        logits = vlm.mask_logits([samples[0].prompt])[0]
    assert (found["coarse"] == (place_map(logits.coarse, logits.box, (12, 24)) > 0).numpy()).all()


def test_an_image_is_encoded_once_for_all_prompts_about_it(squares: SquaresOf) -> None:
    vlm, samples = refined(squares)
    find_masks(vlm, [isolated(sample) for sample in samples], 1)
    assert len(vlm.decoder.refiner.sam.encoded) == 2


def test_samples_of_equal_images_share_what_was_encoded(squares: SquaresOf) -> None:
    vlm, samples = refined(squares)
    copied = replace(samples[0], id="copy", image=samples[0].image.copy())
    find_masks(vlm, [packed(sample) for sample in (*samples, copied)], 8)
    assert len(vlm.decoder.refiner.sam.encoded) == 2


class RedPixels(UntrainedRefiner):
    def refine(self, image: Image.Image, logits: torch.Tensor, *_: object) -> RefinedLogits:  # type: ignore[override]
        return logits_of(np.asarray(image)[..., 0] > 128, len(logits))


def test_different_images_of_one_id_are_refined_each_by_itself(squares: SquaresOf) -> None:
    vlm = GroundedVLM.untrained(load_fake(), base_width=4)
    vlm.decoder.refiner = RedPixels(Marker())  # type: ignore[arg-type]
    small = squares(3)[2]
    larger = replace(
        small,
        image=small.image.resize((48, 24), Image.Resampling.NEAREST),
        masks=np.kron(small.masks, np.ones((1, 2, 2), bool)),
    )
    samples = [replace(sample, image_id="x") for sample in (*squares(3), larger)]
    for sample, found in zip(samples, find_masks(vlm, [packed(sample) for sample in samples], 3), strict=True):
        assert (found["refined"] == sample.masks[0]).all()


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(OptionError, match=r"Unknown protocol 'loose'\. Use one of isolated, packed"):
        protocol_named("loose")


@pytest.fixture
def expressions(tmp_path: Path) -> str:
    """Two objects in an image, one with two sentences, as RefCOCO is published."""
    Image.new("RGB", (20, 10)).save(tmp_path / "COCO_train2014_000000000007.jpg")
    squares = {1: [0, 0, 4, 0, 4, 4, 0, 4], 2: [10, 2, 16, 2, 16, 8, 10, 8]}
    instances = {
        "images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "height": 10, "width": 20}],
        "annotations": [
            {"id": key, "image_id": 7, "category_id": 1, "segmentation": [polygon], "area": 16, "iscrowd": 0}
            | {"bbox": [polygon[0], polygon[1], polygon[2] - polygon[0], polygon[5] - polygon[1]]}
            for key, polygon in squares.items()
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    sentences_of = {1: ["Left one", "the small one"], 2: ["right one"]}
    refs = [
        {"ref_id": key, "ann_id": key, "image_id": 7, "category_id": 1, "split": "val", "sent_ids": [10 * key]}
        | {"file_name": "COCO_train2014_000000000007_1.jpg"}
        | {
            "sentences": [
                {"sent_id": 10 * key + i, "raw": raw, "sent": raw.lower(), "tokens": raw.lower().split()}
                for i, raw in enumerate(sentences)
            ]
        }
        for key, sentences in sentences_of.items()
    ]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    return f"refcoco:annotations={tmp_path},images={tmp_path},split=val"


def test_expressions_are_prompted_with_as_their_data_set_says(expressions: str) -> None:
    for protocol, sentences, texts in (
        ("isolated", "all", ["left one", "the small one", "right one"]),
        ("isolated", "first", ["left one", "right one"]),
        ("packed", "first", ["left one . right one"]),
        ("packed", "all", ["left one . the small one . right one"]),
    ):
        dataset = open_for_protocol(expressions, protocol, sentences)
        prompts = [prompt for sample in dataset for prompt in PROTOCOLS[protocol](sample)]
        assert [prompt.text for prompt in prompts] == texts
        assert f"form={protocol},sentences={sentences}" in dataset.source


def test_the_sentences_stay_as_the_data_set_says_where_nothing_else_is_asked(expressions: str) -> None:
    assert "form=packed,sentences=first" in open_for_protocol(f"{expressions},sentences=first", "packed", None).source
    assert "form=packed,sentences=all" in open_for_protocol(f"{expressions},form=isolated", "packed", None).source


def test_a_set_is_opened_once(expressions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_refcoco = RefCocoConfig.open

    def counting(config: RefCocoConfig, access: Access) -> Dataset:
        opened.append(config.form)
        return open_refcoco(config, access)

    monkeypatch.setattr(RefCocoConfig, "open", counting)
    open_for_protocol(f"{expressions},form=isolated", "packed", "first")
    assert opened == ["packed"]


def test_a_set_with_one_text_per_sample_has_no_sentences_to_choose_from() -> None:
    with pytest.raises(OptionError, match=r"scenes:count=2.* has one text per sample.*--sentences is first\. Leave it"):
        open_for_protocol("scenes:count=2", "packed", "first")


def test_an_unknown_choice_of_sentences_is_refused(expressions: str) -> None:
    with pytest.raises(DataError, match="sentences of refcoco is 'last'"):
        open_for_protocol(expressions, "packed", "last")


def test_a_set_without_sentences_is_opened_unchanged() -> None:
    assert open_for_protocol("scenes:count=2,seed=4", "isolated", None).source == "scenes:count=2,seed=4,first=0"
