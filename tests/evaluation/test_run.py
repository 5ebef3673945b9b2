"""`evaluate()`: any grounder on any data set, with resume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data.dataset import Dataset, Subset
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.locks import locked_folder
from vlm_adapters.errors import OutputError
from vlm_adapters.evaluation import (
    Card,
    EvaluationProgress,
    EvaluationSettings,
    Process,
    evaluate,
    read_records,
    summarise,
)
from vlm_adapters.grounding import Grounder
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vlm_adapters.grounding import Grounding
    from vlm_adapters.prompt import Prompt

SquaresOf = Callable[..., Dataset]

SETTINGS = EvaluationSettings(protocol="packed", batch_size=2, seed=3)


class AlternatingFiles(Subset):
    """The samples of another data set, three images in turn."""

    def image_file(self, index: int) -> Path:
        return Path(f"{index % 3}.png")


class HalvesGrounder(Grounder):
    """A grounder of a stranger: the left half of the image at first, all but the last column at second thought."""

    def __init__(self, fail_at: int = 99) -> None:
        self.adapter = FakeAdapter()
        self.calls, self.fail_at = 0, fail_at
        self.batches: list[list[Image.Image]] = []

    @property
    def description(self) -> str:
        return "halves"

    def fingerprint(self) -> dict[str, str]:
        return {"halves": "0123abcd"}

    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        raise NotImplementedError

    def masks(self, prompts: Sequence[Prompt], *, batch_size: int = 8) -> list[dict[str, NDArray[np.bool_]]]:
        assert len(prompts) <= batch_size
        self.calls += 1
        self.batches.append([prompt.images[0] for prompt in prompts])
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        found = []
        for prompt in prompts:
            width, height = prompt.images[0].size
            half, most = np.zeros((2, len(prompt.phrases), height, width), np.bool_)
            half[..., : width // 2] = True
            most[..., :-1] = True
            found.append({"draft": half, "final": most})
        return found


def run(out: Path, dataset: Dataset, grounder: Grounder | None = None, **options: object) -> Card:
    return evaluate(grounder or HalvesGrounder(), dataset, SETTINGS, out, **options)


def test_the_masks_and_digests_of_a_strangers_grounder_are_in_the_card(squares: SquaresOf, tmp_path: Path) -> None:
    card = run(tmp_path, squares(3))
    assert card.masks == ["draft", "final"]
    # Images of 12 x 24: red squares of 16 pixels lie in the left half, green ones of 36 in the right half.
    assert card.number("all", "draft", "mIoU").value == pytest.approx((16 / 144 + 0) / 2)
    assert card.number("all", "final", "mIoU").value == pytest.approx((16 + 36) / 276 / 2)
    assert card.fingerprint.digests == {"backbone": FakeAdapter().info.fingerprint, "halves": "0123abcd"}
    assert card.fingerprint.method == "halves"
    assert (card.fingerprint.model, card.command) == (FakeAdapter().info.checkpoint, None)


def test_the_files_say_what_the_card_says(squares: SquaresOf, tmp_path: Path) -> None:
    card = run(tmp_path / "new" / "out", squares(3))
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json",
        "card.md",
        "partial_results",
        "records.jsonl",
    ]
    written = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert written["fingerprint"]["digests"] == card.fingerprint.digests
    assert written["date"] == card.date
    assert tuple(summarise(read_records(out / "records.jsonl"), seed=3)) == card.numbers


def test_an_interrupted_run_is_resumed(squares: SquaresOf, tmp_path: Path) -> None:
    run(tmp_path / "complete", squares(7))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", squares(7), HalvesGrounder(fail_at=3))
    assert not (tmp_path / "resumed" / "card.json").exists()
    rest = HalvesGrounder()
    run(tmp_path / "resumed", squares(7), rest)
    assert rest.calls == 2
    records = [(tmp_path / name / "records.jsonl").read_bytes() for name in ("resumed", "complete")]
    assert records[0] == records[1]


def test_records_that_were_changed_are_noticed_by_the_next_run_and_then_made_anew(
    squares: SquaresOf, tmp_path: Path
) -> None:
    run(tmp_path, squares(5))
    path = tmp_path / "records.jsonl"
    original = path.read_bytes()
    lines = original.splitlines(keepends=True)
    for changed in (original[:-1], b"".join(lines[1:]), original.replace(b"red", b"RED"), b""):
        path.write_bytes(changed)
        with pytest.raises(OutputError, match=r"records\.jsonl was changed after it was written.*Remove it and run"):
            run(tmp_path, squares(5))
        path.unlink()
        run(tmp_path, squares(5))
        assert path.read_bytes() == original


def test_two_runs_in_one_folder_the_second_says_who_holds_it(squares: SquaresOf, tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as other,
        locked_folder(tmp_path),
        pytest.raises(OutputError, match=rf"is in use by process {os.getpid()} on .* since"),
    ):
        other.submit(run, tmp_path, squares(5)).result()
    run(tmp_path, squares(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "card.json",
        "card.md",
        "partial_results",
        "records.jsonl",
    ]


def test_progress_counts_what_an_interrupted_run_did(squares: SquaresOf, tmp_path: Path) -> None:
    reports: list[EvaluationProgress] = []
    run(tmp_path, squares(5), report=reports.append)
    assert [(progress.samples, progress.total) for progress in reports] == [(0, 5), (2, 5), (4, 5), (5, 5)]
    reports.clear()
    run(tmp_path, squares(5), report=reports.append)
    assert reports == [EvaluationProgress(5, 5)]


def test_the_first_process_writes_and_all_have_the_card(squares: SquaresOf, tmp_path: Path) -> None:
    waiting: list[Callable[[], object]] = []

    def finish() -> None:  # the first process waits for the second
        for other in waiting:
            other()

    cards: list[Card] = []
    second = Process(1, 2)
    waiting.append(lambda: cards.append(_computed(tmp_path, squares(7), second)))
    cards.append(run(tmp_path, squares(7), process=Process(0, 2, finish=finish)))
    assert [card.processes for card in cards] == [2, 2]
    assert cards[0].numbers == cards[1].numbers
    assert len(read_records(tmp_path / "records.jsonl")) == 14
    assert sorted(path.name for path in (tmp_path / "partial_results").iterdir()) == [
        "process-000.jsonl",
        "process-001.jsonl",
    ]


def _computed(out: Path, dataset: Dataset, process: Process) -> Card:
    card = run(out, dataset, process=process)
    assert not (out / "card.json").exists()
    return card


def test_a_different_run_in_the_same_folder_is_refused(squares: SquaresOf, tmp_path: Path) -> None:
    run(tmp_path, squares(3))
    with pytest.raises(OutputError, match="belongs to a different run: data: 'squares:count=3' there"):
        run(tmp_path, squares(4))


def test_a_slice_of_a_data_set_is_evaluated(tmp_path: Path) -> None:
    card = run(tmp_path, Scenes(4, seed=1)[1:3])
    assert (card.samples, card.fingerprint.sentences) == (2, None)


def test_samples_of_one_image_are_computed_together_and_recorded_in_the_order_of_the_data(
    squares: SquaresOf, tmp_path: Path
) -> None:
    samples = squares(7, broken=[2])
    grounder = HalvesGrounder()
    together = run(tmp_path / "together", AlternatingFiles(samples, range(7)), grounder)
    apart = run(tmp_path / "apart", samples)
    images = [samples[index].image.tobytes() for index in (0, 1, 5)]
    found = [[images.index(image.tobytes()) for image in batch] for batch in grounder.batches]
    assert found == [[0, 0], [0], [1, 1], [2]]
    assert together.numbers == apart.numbers
    written = [(tmp_path / name / "records.jsonl").read_bytes() for name in ("together", "apart")]
    assert written[0] == written[1]
