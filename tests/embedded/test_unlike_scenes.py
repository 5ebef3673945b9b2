"""What an embedded model says, in Python, about an image that does not look like a scene."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING

import pytest

from vlm_adapters import GridRequest, Prompt, Video, load_adapter, load_grounder
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import alias_of, embedded_checkpoints
from vlm_adapters.embedded.unlike_scenes import REAL_CHECKPOINT, warnings_about
from vlm_adapters.errors import UnlikeSceneWarning
from vlm_adapters.heads.calibrate import CALIBRATION_SEED, CalibrationSet, calibrate
from vlm_adapters.inspection.interface import probe
from vlm_adapters.registry.discovery import list_adapters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image

TOY = "tiny-llava"
SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]


@pytest.fixture
def photo(photograph: Callable[..., Image.Image]) -> Image.Image:
    return photograph()


@pytest.mark.parametrize("method", ["decoder", "heads"])
def test_grounding_in_a_photograph_warns_once_at_the_callers_line_and_in_the_result(
    method: str, photo: Image.Image
) -> None:
    grounder = load_grounder(TOY, method=method)
    with pytest.warns(UnlikeSceneWarning) as caught:
        grounding = grounder.ground(photo, "a cat on a mat", ["a cat", "a mat"])
    (warning,) = caught
    assert warning.filename == __file__
    assert grounding.warnings == (str(warning.message),)
    assert grounding.warnings[0].startswith(f"{TOY} was trained on synthetic scenes")
    assert REAL_CHECKPOINT in grounding.warnings[0]


def test_the_checkpoint_that_is_named_instead_is_supported() -> None:
    assert any(REAL_CHECKPOINT in entry.checkpoints for entry in list_adapters())


def test_nothing_is_said_of_a_scene() -> None:
    assert load_grounder(TOY).ground(SCENE.image, SCENE.text, SCENE.phrases).warnings == ()


def test_a_batch_warns_once_and_each_result_says_it_of_its_own_image(photograph: Callable[..., Image.Image]) -> None:
    prompts = [Prompt.describe(image, "a red cross", ["a red cross"]) for image in (photograph(1), SCENE.image)]
    prompts.append(Prompt.describe(photograph(2), "a red cross", ["a red cross"]))
    with pytest.warns(UnlikeSceneWarning) as caught:
        found = load_grounder(TOY).ground_all(prompts)
    assert len(caught) == 1
    assert [bool(grounding.warnings) for grounding in found] == [True, False, True]


def test_an_adapter_alone_warns_too(photo: Image.Image) -> None:
    adapter = load_adapter(TOY)
    with pytest.warns(UnlikeSceneWarning) as caught:
        adapter.extract(adapter.preprocess([Prompt.describe(photo, "a cat", ["a cat"])]), GridRequest(layers=[0]))
    assert [warning.filename for warning in caught] == [__file__]


def test_a_video_of_something_else_warns(photo: Image.Image) -> None:
    video = Video([photo.resize((96, 64))] * 4, seconds=[0, 1, 2, 3])
    adapter = load_adapter("tiny-qwen2_5_vl")
    with pytest.warns(UnlikeSceneWarning):
        adapter.preprocess([Prompt.describe(video, "a cat", ["a cat"])])


def test_nothing_is_said_of_images_that_the_library_makes_itself() -> None:
    with warnings.catch_warnings(action="error", category=UnlikeSceneWarning):
        adapter = load_adapter(TOY)
        probe(adapter, sizes=[(64, 96)])
        calibrate(adapter, CalibrationSet.of_scenes(Scenes(2, seed=CALIBRATION_SEED), CALIBRATION_SEED, labelled=True))


def test_nothing_is_said_for_a_model_of_the_users_own(photo: Image.Image, tmp_path: Path) -> None:
    shutil.copytree(embedded_checkpoints()[TOY], tmp_path / TOY)
    own = load_adapter(tmp_path / TOY)
    with warnings.catch_warnings(action="error", category=UnlikeSceneWarning):
        own.preprocess([Prompt.describe(photo, "a cat", ["a cat"])])
    assert warnings_about(REAL_CHECKPOINT, [photo]) == ()


def test_an_embedded_model_is_known_by_name_and_by_path(tmp_path: Path) -> None:
    folder = embedded_checkpoints()[TOY]
    (tmp_path / "link").symlink_to(folder)
    for location in (TOY, str(folder), f"{folder}/", str(tmp_path / "link")):
        assert alias_of(location) == TOY
    assert alias_of(str(tmp_path)) is None
