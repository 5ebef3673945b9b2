"""The files of a grounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlm_adapters.data.rle import decode_rle
from vlm_adapters.grounding import GroundedPhrase, Grounding, PackedMask, PhraseMap
from vlm_adapters.output import write_grounding
from vlm_adapters.prompt import Phrase


def test_all_files_are_written_and_agree(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[5:30, 10:50] = True
    found = GroundedPhrase(Phrase("a dog", 0, 5), PackedMask.of(mask), 0.9, PhraseMap.of_pixels(mask))
    files = write_grounding(Grounding(Image.new("RGB", (60, 40)), "a dog", (found,)), tmp_path / "out", image_id=7)
    names = ["overlay.png", "figure.png", "mask_00.png", "masks.png", "coco.json", "grounding.json"]
    assert files == [tmp_path / "out" / name for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    (phrase,) = json.loads((tmp_path / "out" / "grounding.json").read_text(encoding="utf-8"))["phrases"]
    (result,) = json.loads((tmp_path / "out" / "coco.json").read_text(encoding="utf-8"))
    assert (result["image_id"], result["score"]) == (7, 0.9)
    for segmentation in (phrase["mask"], result["segmentation"]):
        assert (decode_rle(segmentation) == mask).all()
    with Image.open(tmp_path / "out" / "mask_00.png") as image:
        assert (np.asarray(image) == mask).all()
