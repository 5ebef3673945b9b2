"""The loop: what it learns from, how it resumes, and that many processes do what one does."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.losses import decoder_loss, dice_loss, mask_loss
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.errors import RecipeError
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.heads.calibrate import CalibrationSet, calibrate
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training import data as data_module
from vlm_adapters.training.cache.build import CachedSamples
from vlm_adapters.training.checkpoint import checkpoints
from vlm_adapters.training.data import TrainingData, build_caches
from vlm_adapters.training.log import Step, read_log
from vlm_adapters.training.loop import learning_rate_at, new_decoder, train
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import ConcatSamples, LiveSamples

Recipes = Callable[..., Recipe]

Live = Callable[..., LiveSamples]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_log(out) if "loss" in line]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(out)[-1] / "model.safetensors")


def test_the_loss_goes_down_and_the_best_decoder_can_ground(recipe: Recipes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    state = train(recipe(epochs=12), out)
    curve = losses(out)
    assert len(curve) == state.step == 36  # 7 samples in batches of 3, 12 times
    assert np.mean(curve[-3:]) < 0.9 * np.mean(curve[:3])
    vlm = GroundedVLM.from_pretrained(out / "best", adapter=FakeAdapter())
    assert vlm.ground(Image.new("RGB", (64, 64)), "a red circle", ["a red circle"]).phrases[0].mask.shape == (64, 64)


def test_the_validation_is_the_mean_iou_of_the_saved_decoder(recipe: Recipes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    state = train(recipe(epochs=3), out)
    vlm = GroundedVLM.from_pretrained(out / "best", adapter=FakeAdapter())
    ious = [
        mask_iou(found.mask, mask)
        for sample in open_dataset("scenes:count=3,seed=6")
        for found, mask in zip(vlm.ground_all([sample.prompt])[0].phrases, sample.masks, strict=True)
    ]
    assert state.best_mean_iou == pytest.approx(np.mean(ious), abs=2e-3)  # the cache keeps maps in half precision


def test_a_run_that_was_stopped_resumes_bit_for_bit(recipe: Recipes, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe(), whole)

    def stop(step: Step) -> None:
        if step.number == 4:  # in the middle of an epoch
            os.kill(os.getpid(), signal.SIGTERM)

    state = train(recipe(), broken, report=stop)
    assert 4 <= state.step < 6
    train(recipe(), broken)
    assert losses(broken) == losses(whole)
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(broken).items())
    moments = [load_file(checkpoints(out)[-1] / "optimizer.safetensors") for out in (whole, broken)]
    assert all(torch.equal(tensor, moments[1][name]) for name, tensor in moments[0].items())


def test_a_run_that_was_killed_resumes_from_its_last_checkpoint(recipe: Recipes, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(step: Step) -> None:
        if step.number == 5:
            raise KilledError

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe(), whole)
    with pytest.raises(KilledError):
        train(recipe(), broken, report=kill)
    assert [path.name for path in checkpoints(broken)] == ["step-00000003"]
    train(recipe(), broken)
    assert losses(broken) == losses(whole)


def test_a_finished_run_does_nothing(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(), tmp_path / "run")
    before = losses(tmp_path / "run")
    assert train(recipe(), tmp_path / "run").step == 6
    assert losses(tmp_path / "run") == before


def test_two_processes_do_what_one_does(recipe: Recipes, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    chosen = recipe(validation=None)
    train(chosen, one)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    script = tmp_path / "launched.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom accelerate import PartialState\n"
        "from vlm_adapters.training.loop import train\nfrom vlm_adapters.training.recipe import Recipe\n"
        "state = train(Recipe.read(sys.argv[1]), Path(sys.argv[2]))\n"
        "process = PartialState()\n"
        "Path(f'{sys.argv[2]}.{process.process_index}').write_text(f'of {process.num_processes} at {state.step}')\n"
    )
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script), str(file), str(two)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert [Path(f"{two}.{process}").read_text() for process in (0, 1)] == ["of 2 at 6"] * 2
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    for name, tensor in weights(two).items():
        torch.testing.assert_close(tensor, weights(one)[name], rtol=1e-3, atol=1e-3)


def test_with_the_backbone_in_the_loop_the_curve_is_the_same(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(), tmp_path / "cached")
    train(recipe(cache=None), tmp_path / "live")
    assert losses(tmp_path / "live") == pytest.approx(losses(tmp_path / "cached"), abs=1e-4)


def test_small_pieces_of_a_batch_give_the_same_gradient(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(micro_batch_size=1, validation=None), tmp_path / "pieces")
    train(recipe(micro_batch_size=3, validation=None), tmp_path / "whole")
    assert losses(tmp_path / "pieces") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_from_a_cache_the_backbone_is_not_loaded(recipe: Recipes, tmp_path: Path, adapter: Any) -> None:
    train(recipe(), tmp_path / "first")
    done = adapter.extracted
    train(recipe(epochs=1), tmp_path / "second")
    assert adapter.extracted == done


def test_a_backbone_that_is_given_is_not_loaded_again(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "load_adapter", None)
    for cache in (str(tmp_path / "cache"), None):
        assert train(
            recipe(cache=cache, epochs=1), tmp_path / f"run-{cache is None}", adapter=FakeAdapter()
        ).is_finished


def test_samples_without_a_cache_need_the_backbone(recipe: Recipes) -> None:
    with pytest.raises(RecipeError, match=r"Without a cache, the samples of scenes\S* need the backbone\. Give the ad"):
        TrainingData.open(recipe(cache=None)).training_samples()


def test_the_loss_of_samples_is_weighted_by_their_phrases(live: Live) -> None:
    source = live("scenes:count=3,seed=3")
    samples = source.read([0, 1, 2])
    torch.manual_seed(0)
    decoder = MaskDecoder.untrained(source.fingerprint.backbone, base_width=2)
    total = 0.0
    for sample in samples:
        with torch.no_grad():
            logits = decoder.unet(sample.features.maps)
        left, top, right, bottom = (round(side) for side in sample.features.box)
        padded = np.zeros((len(sample.masks), bottom - top, right - left))
        padded[:, : sample.masks.shape[1], : sample.masks.shape[2]] = sample.masks
        cells = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(padded).float(), logits.shape[1:])
        total += len(sample.masks) * float(mask_loss(logits, cells) + dice_loss(logits, cells))
    found = decoder([sample.features for sample in samples])
    assert float(decoder_loss(found, [sample.masks for sample in samples]).detach()) == pytest.approx(total, rel=1e-4)


def test_every_sample_is_seen_once_an_epoch_in_another_order(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    read = CachedSamples.read
    watched = lambda self, indices: (seen.extend(indices), read(self, indices))[1]  # noqa: E731
    monkeypatch.setattr(CachedSamples, "read", watched)
    train(recipe(validation=None), tmp_path / "run")
    assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7))
    assert seen[:7] != seen[7:]


def test_the_rate_grows_evenly_and_falls_as_a_cosine() -> None:
    rates = [learning_rate_at(step, 10, 2.0, 0.2) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)
    assert rates[9] == pytest.approx(1 + math.cos(math.pi * 7 / 8))


def test_the_last_checkpoints_and_the_best_stay(recipe: Recipes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    state = train(recipe(epochs=5, keep_checkpoints=1), out)
    kept = {path.name for path in checkpoints(out)}
    assert kept == {"step-00000015", f"step-{state.best_step:08d}"}
    assert (out / "best").resolve().name == f"step-{state.best_step:08d}"
    ious = {line["step"]: line["validation_mean_iou"] for line in read_log(out) if "validation_mean_iou" in line}
    assert len(ious) == 5
    assert ious[state.best_step or 0] == max(ious.values()) == state.best_mean_iou


def test_without_validation_the_best_is_the_last(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(validation=None), tmp_path / "run")
    assert (tmp_path / "run" / "best").resolve().name == "step-00000006"


def test_the_sheet_shows_the_validation_samples(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(epochs=1), tmp_path / "run")
    with Image.open(tmp_path / "run" / "figures" / "step-00000003.png") as sheet:
        assert sheet.width > 2 * 260


def test_a_line_that_a_kill_cut_off_is_taken_back(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(), tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    before = log.read_text()
    log.write_text(before + '{"step": 7, "lo')
    train(recipe(), tmp_path / "run")
    assert log.read_text() == before
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_several_sets_are_learned_from_together(recipe: Recipes, tmp_path: Path) -> None:
    sets = ["scenes:count=4,seed=3", "scenes:count=3,seed=8"]
    build_caches(recipe(train=sets))
    samples = TrainingData.open(recipe(train=sets)).training_samples()
    assert isinstance(samples, ConcatSamples)
    assert len(samples) == 7
    ids = [sample.annotation.id for sample in samples.read([5, 0, 3, 6])]
    assert ids == ["scene-8-1", "scene-3-0", "scene-3-3", "scene-8-2"]
    assert train(recipe(train=sets), tmp_path / "run").step == 6


def test_a_refiner_is_trained_with_the_decoder_and_resumes_bit_for_bit(
    recipe: Recipes, tmp_path: Path, tiny_sam: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "load_sam", lambda _: SegmentAnything(tiny_sam()))
    (tmp_path / "tiny.pth").write_bytes(b"stands for its weights")
    chosen = recipe(refiner={"sam": str(tmp_path / "tiny.pth")}, train=["scenes:count=4,seed=3"], validation=None)
    train(chosen, tmp_path / "whole")

    def stop(step: Step) -> None:
        if step.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(chosen, tmp_path / "broken", report=stop).step < 4
    train(chosen, tmp_path / "broken")
    after = [load_file(tmp_path / name / "best" / "refiner.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(tensor, after[1][name]) for name, tensor in after[0].items())
    torch.manual_seed(chosen.seed)
    fingerprint = TrainingData.open(chosen).training_samples().fingerprint
    before = new_decoder(chosen, fingerprint, SegmentAnything(tiny_sam())).trainable_parameters()
    changed = {name for name, tensor in after[0].items() if not torch.equal(tensor, before[f"refiner.{name}"])}
    assert {"text.projection.weight", "text.layer_weights"} < changed
    assert any(name.startswith("sam.model.mask_decoder") for name in changed)
    assert not any("image_encoder" in name for name in after[0])


def test_a_decoder_of_the_best_heads_of_a_profile_reads_them_alone(recipe: Recipes, tmp_path: Path) -> None:
    scenes = Scenes(2, seed=5)
    none = calibrate(FakeAdapter(), CalibrationSet.of_scenes(scenes, 5, labelled=True), most=1)
    profile = none.model_copy(update={"heads": none.others[:1], "others": none.others[1:]})  # its weights are random
    profile.write(tmp_path / "heads.json")
    ranked = [(head.layer, head.head) for head in (*profile.heads, *profile.others)]
    assert len(profile.heads) == 1
    assert len(ranked) > 3
    train(recipe(head_profile=str(tmp_path / "heads.json"), top_heads=3, reduce="last", epochs=1), tmp_path / "run")
    vlm = GroundedVLM.from_pretrained(tmp_path / "run" / "best", adapter=FakeAdapter())
    assert vlm.decoder.request.heads == tuple(ranked[:3])
    assert vlm.decoder.request.grids.reduce == "last"
    assert vlm.decoder.unet.config.channels == 3


def test_a_decoder_reads_the_rows_that_its_recipe_asks_for(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(reduce="last", epochs=1), tmp_path / "run")
    vlm = GroundedVLM.from_pretrained(tmp_path / "run" / "best", adapter=FakeAdapter())
    assert vlm.decoder.request.grids.reduce == "last"


def test_a_validation_that_a_stop_left_out_is_made_first_when_the_run_resumes(recipe: Recipes, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe(), whole)
    for last in (2, 5):  # the stop is noticed after the next step, which ends an epoch

        def stop(step: Step, last: int = last) -> None:
            if step.number == last:
                os.kill(os.getpid(), signal.SIGTERM)

        state = train(recipe(), broken, report=stop)
        assert (state.step, state.is_finished) == (last + 1, False)
    assert train(recipe(), broken).is_finished
    assert [line for line in read_log(broken) if "loss" not in line] == [
        line for line in read_log(whole) if "loss" not in line
    ]
    assert (broken / "best").resolve().name == (whole / "best").resolve().name
