"""How a real backbone is fed for a cache: sentences about one image together, and shards among processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typing_extensions import override

from vlm_adapters import GroundedVLM, Phrase, TransformersBackbone, evaluate, load_adapter, open_dataset
from vlm_adapters.data import Dataset, Sample
from vlm_adapters.data.dataset import Subset
from vlm_adapters.decoder import FeatureRequest
from vlm_adapters.evaluation import EvaluationSettings, read_records
from vlm_adapters.training.cache.build import CachedSamples, build_cache
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.composition import Composition
from vlm_adapters.training.samples import LiveSamples

HALF = 2**-10
"""Distance of neighbouring numbers below 1 in float16; every map's peak is 1."""


class PhraseByPhrase(Dataset):
    """Every phrase of some scenes as a sample of its own: those of a scene share its image."""

    def __init__(self, scenes: Dataset) -> None:
        self._scenes = scenes
        counts = [len(sample.phrases) for sample in scenes]
        self._places = [(scene, phrase) for scene, count in enumerate(counts) for phrase in range(count)]

    @property
    @override
    def source(self) -> str:
        return "phrases"

    def __len__(self) -> int:
        return len(self._places)

    @override
    def image_file(self, index: int) -> Path:
        return Path(f"{self._places[index][0]}.png")

    @override
    def sample(self, index: int) -> Sample:
        scene, phrase = self._places[index]
        sample = self._scenes[scene]
        text = sample.phrases[phrase].text
        return replace(
            sample,
            id=f"{sample.id}-{phrase}",
            text=text,
            phrases=(Phrase.at(text, 0, len(text)),),
            phrase_ids=(),
            phrase_tags=(),
            masks=np.ascontiguousarray(sample.masks[phrase : phrase + 1]),
        )


@pytest.fixture(scope="module")
def adapter() -> TransformersBackbone:
    return load_adapter("tiny-qwen2_5_vl", device="cpu")


def live(adapter: TransformersBackbone, workers: int = 1) -> LiveSamples:
    data = PhraseByPhrase(open_dataset("scenes:count=4,seed=9"))
    request = FeatureRequest(hidden=True)
    return LiveSamples(adapter, data, CacheFingerprint.of(adapter, data.source, request), workers=workers)


def test_sentences_about_one_image_run_in_one_pass_and_give_what_they_give_alone(
    adapter: TransformersBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = live(adapter)
    shapes: list[tuple[int, ...]] = []
    hook = adapter.model.base_model.language_model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    together = source.read(range(len(source)))
    hook.remove()
    assert [batch for batch, _ in shapes] == [1] * 4  # for every image a sequence of the beginning and the texts
    monkeypatch.setattr(source, "composition", Composition(shares=False, pads=False))
    alone = source.read(range(len(source)))
    assert len(alone) > 2 * 4
    for one, other in zip(together, alone, strict=True):
        assert one.annotation == other.annotation
        torch.testing.assert_close(one.features.maps, other.features.maps, rtol=HALF, atol=1e-4)
        for states, expected in zip(one.features.hidden, other.features.hidden, strict=True):
            torch.testing.assert_close(states, expected, rtol=2 * HALF, atol=1e-3)


def test_the_bytes_of_a_cache_do_not_depend_on_workers_and_a_loop_sees_the_same_within_half_precision(
    adapter: TransformersBackbone, tmp_path: Path
) -> None:
    found = []
    for workers in (0, 1, 3):
        build_cache(live(adapter, workers), folder := tmp_path / str(workers), shard_samples=5)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1] == found[2]
    cached, source = CachedSamples(tmp_path / "0"), live(adapter)
    for index in (7, 2, 0):  # as a loop reads them: in any order, beside others or alone
        (kept,), (computed,) = cached.read([index]), source.read([index])
        torch.testing.assert_close(kept.features.maps, computed.features.maps, rtol=HALF, atol=1e-4)


@pytest.mark.slow
def test_accelerate_launch_divides_a_build_and_writes_the_bytes_of_one_process(tmp_path: Path) -> None:
    recipe = ["scenes", "model=tiny-qwen2_5_vl", "device=cpu", "train=scenes:count=70,seed=3", "validation=null"]
    launchers = {
        "one": [sys.executable],
        "two": [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"],
    }
    found, one_thread = {}, {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, launcher in launchers.items():
        command = [*launcher, "-m", "vlm_adapters", "cache", "build", *recipe, f"cache={tmp_path / name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("70 samples") == 1  # one process speaks
        (folder,) = (tmp_path / name).iterdir()
        found[name] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert len(found["one"]) == 2 + 2 * 2
    assert found["one"] == found["two"]


def test_an_evaluation_runs_the_tower_once_for_every_image_wherever_its_sentences_are(
    adapter: TransformersBackbone, tmp_path: Path
) -> None:
    vlm = GroundedVLM.from_pretrained("tiny-qwen2_5_vl", adapter=adapter)
    in_order = PhraseByPhrase(open_dataset("scenes:count=3,seed=9"))
    order = np.random.default_rng(0).permutation(len(in_order)).tolist()
    assert [in_order.image_file(index) for index in order] != sorted(in_order.image_file(index) for index in order)
    settings = EvaluationSettings(protocol="isolated", batch_size=len(in_order) - 1)
    passes: list[int] = []
    hook = adapter.model.base_model.visual.register_forward_hook(lambda *_: passes.append(1))
    evaluate(vlm, Subset(in_order, order), settings, tmp_path / "mixed")
    hook.remove()
    alone = EvaluationSettings(protocol="isolated", batch_size=1)
    evaluate(vlm, in_order, alone, tmp_path / "alone")
    mixed, expected = (read_records(tmp_path / name / "records.jsonl") for name in ("mixed", "alone"))
    assert len(passes) == 3
    assert [record.sample for record in mixed] == [expected[index].sample for index in order]
    for record, index in zip(mixed, order, strict=True):
        assert record.found["mask"].iou == pytest.approx(expected[index].found["mask"].iou, abs=1e-3)
