"""Runs end the same, however often and wherever they were interrupted, and damage is noticed where a run resumes."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from vlm_adapters.data import files as files_module
from vlm_adapters.errors import AdapterError, OutputError, RecipeError
from vlm_adapters.training import checkpoint as checkpoint_module
from vlm_adapters.training.checkpoint import checkpoints
from vlm_adapters.training.log import Step, read_log
from vlm_adapters.training.loop import learning_rate_at, train
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.validation import Validation

Recipes = Callable[..., Recipe]


def scalars(out: Path) -> list[tuple[str, int, float]]:
    """Every scalar in every event file, whatever TensorBoard would make of it."""
    events = [
        event for path in sorted((out / "tensorboard").iterdir()) for event in LegacyEventFileLoader(str(path)).Load()
    ]
    return sorted((value.tag, event.step, value.simple_value) for event in events for value in event.summary.value)


def content(out: Path) -> dict[str, bytes]:
    """Every file of a run, by its content, without the events."""
    paths = [path for path in out.rglob("*") if path.is_file() and "tensorboard" not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


class KilledError(Exception):
    """Stands in for a kill: nothing in the library catches it, and this process lives on."""


def killed_at(event: int, monkeypatch: pytest.MonkeyPatch, patch: Any, run: Callable[[], object]) -> bool:
    """Run, and end it before or after the rename of that number, as a kill would: without any clean-up."""
    numbers, rename, append = count(), Path.replace, files_module.append_line

    def strike(happen: Callable[[], Any]) -> Any:
        number = next(numbers)
        if number == event and event % 2:
            raise KilledError
        done = happen()
        if number == event:
            raise KilledError
        return done

    with monkeypatch.context() as context:
        context.setattr(Path, "replace", lambda self, target: strike(lambda: rename(self, target)))
        context.setattr(patch, "append_line", lambda path, line: strike(lambda: append(path, line)))
        try:
            run()
        except KilledError:
            return True
    return False


@pytest.mark.parametrize("scenes", ["scenes", "hard_scenes"])  # the latter teach presence, which is calibrated
def test_killed_at_any_file_event_a_run_ends_with_the_same_files_and_scalars(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes: str
) -> None:
    from vlm_adapters.training import log as log_module  # noqa: PLC0415

    chosen = recipe(epochs=2, train=[f"{scenes}:count=7,seed=3"], validation=f"{scenes}:count=3,seed=6")
    train(chosen, tmp_path / "unbroken")
    wanted, wanted_scalars = content(tmp_path / "unbroken"), scalars(tmp_path / "unbroken")
    assert len(wanted_scalars) == len(set(wanted_scalars)) == 6 * 3 + 2
    event = 0
    while True:
        out = tmp_path / f"run-{event}"
        killed = killed_at(event, monkeypatch, log_module, lambda out=out: train(chosen, out))  # type: ignore[misc]
        if not killed:
            break
        train(chosen, out)
        assert content(out) == wanted, event
        assert scalars(out) == wanted_scalars, event
        event += 1
    assert event > 20


def stop_at(step: int, number: signal.Signals) -> Callable[[Step], None]:
    def report(done: Step) -> None:
        if done.number == step:
            os.kill(os.getpid(), number)

    return report


def test_the_checkpoint_of_a_stop_goes_when_the_next_due_one_is_there(recipe: Recipes, tmp_path: Path) -> None:
    chosen = recipe(epochs=3)
    train(chosen, tmp_path / "unbroken")
    for step in (1, 3, 4, 7):
        train(chosen, tmp_path / "stopped", report=stop_at(step, signal.SIGTERM))
    assert train(chosen, tmp_path / "stopped").is_finished
    assert content(tmp_path / "stopped") == content(tmp_path / "unbroken")


def test_ctrl_c_saves_what_sigterm_saves_and_then_interrupts(recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "int", report=stop_at(4, signal.SIGINT))
    train(recipe(), tmp_path / "term", report=stop_at(4, signal.SIGTERM))
    assert [path.name for path in checkpoints(tmp_path / "int")] == ["step-00000003", "step-00000005"]
    assert content(tmp_path / "int") == content(tmp_path / "term")


def test_a_second_ctrl_c_interrupts_at_once(recipe: Recipes, tmp_path: Path) -> None:
    def twice(done: Step) -> None:
        if done.number == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "run", report=twice)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-00000003"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stop_in_a_validation_does_not_wait_for_its_end(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(), tmp_path / "unbroken")
    judge = Validation.judge

    def stopped(self: Validation, *arguments: Any) -> float | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return judge(self, *arguments)

    with monkeypatch.context() as context:
        context.setattr(Validation, "judge", stopped)
        assert train(recipe(), tmp_path / "run").step == 3
        assert train(recipe(), tmp_path / "run").step == 3
    train(recipe(), tmp_path / "run")
    assert content(tmp_path / "run") == content(tmp_path / "unbroken")


def test_a_persons_copies_beside_the_checkpoints_stay_and_are_not_resumed_from(recipe: Recipes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(recipe(epochs=1), out)
    copies = ["step-00000003-mine", "step-3", "step-00000009.bak", "my-step-00000003"]
    for name in copies:
        shutil.copytree(out / "step-00000003", out / name)
    assert train(recipe(epochs=5), out).step == 15
    assert all((out / name / "state.json").is_file() for name in copies)


def test_more_epochs_continue_a_finished_run_at_the_rates_of_a_run_of_that_length(
    recipe: Recipes, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(recipe(epochs=2), out)
    before = read_log(out)
    state = train(recipe(epochs=4), out)
    assert (state.step, state.total_steps, state.is_finished) == (12, 12, True)
    assert read_log(out)[: len(before)] == before
    rates = [line["learning_rate"] for line in read_log(out) if "loss" in line][6:]
    assert rates == [learning_rate_at(step, 12, 0.01, recipe().warmup_ratio) for step in range(6, 12)]
    train(recipe(epochs=2), tmp_path / "again")
    train(recipe(epochs=4), tmp_path / "again", report=stop_at(8, signal.SIGTERM))
    train(recipe(epochs=4), tmp_path / "again")
    assert content(tmp_path / "again") == content(out)


def test_an_unfinished_run_or_fewer_epochs_are_another_recipe(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(epochs=2), tmp_path / "run", report=stop_at(4, signal.SIGTERM))
    for epochs in (1, 3):
        with pytest.raises(RecipeError, match=rf"another recipe: epochs: 2 -> {epochs}\..*Only a finished run"):
            train(recipe(epochs=epochs), tmp_path / "run")


def test_two_runs_in_one_folder_the_second_says_who_holds_it(recipe: Recipes, tmp_path: Path) -> None:
    errors: list[str] = []

    def second(done: Step) -> None:
        def run() -> None:
            try:
                train(recipe(), tmp_path / "run")
            except OutputError as error:
                errors.append(str(error))

        if done.number == 2:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()

    assert train(recipe(), tmp_path / "run", report=second).is_finished
    assert len(errors) == 1
    assert f"run is in use by process {os.getpid()} on" in errors[0]
    assert len(read_log(tmp_path / "run")) == 8


def test_a_folder_that_is_removed_meanwhile_is_an_error_at_once(recipe: Recipes, tmp_path: Path) -> None:
    steps: list[int] = []

    def remove(done: Step) -> None:
        steps.append(done.number)
        shutil.rmtree(tmp_path / "run")

    with pytest.raises(OutputError, match=r"run.log\.jsonl cannot be written: No such file or directory"):
        train(recipe(), tmp_path / "run", report=remove)
    assert steps == [1]


FILES = ("state.json", "model.safetensors", "optimizer.safetensors", "config.json")


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_of_a_checkpoint_is_noticed_and_named_when_a_run_resumes(
    recipe: Recipes, tmp_path: Path, name: str
) -> None:
    train(recipe(), tmp_path / "run")
    path = checkpoints(tmp_path / "run")[-1] / name
    original = path.read_bytes()
    for seed in range(8):
        bit = int(np.random.default_rng(seed).integers(8 * len(original)))
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(RecipeError, match=rf"{name}.*Delete .*{path.parent.name} to resume from the checkpoint"):
            train(recipe(), tmp_path / "run")
    shutil.rmtree(path.parent)  # what the message says
    assert train(recipe(), tmp_path / "run").is_finished
    assert path.read_bytes() == original


def test_a_disk_without_room_ends_a_run_and_it_resumes_when_there_is_room(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(), tmp_path / "unbroken")
    for after in (0, 3, 10):
        out, writes = tmp_path / f"full-{after}", count()

        def full(self: Path, data: bytes, writes: Any = writes, after: int = after) -> int:
            if next(writes) >= after:
                raise OSError(28, "No space left on device")
            with self.open("wb") as file:
                return file.write(data)

        with monkeypatch.context() as context:
            context.setattr(Path, "write_bytes", full)
            with pytest.raises(AdapterError, match="No space left on device"):
                train(recipe(), out)
        assert not list(out.glob(".*"))
        train(recipe(), out)
        assert content(out) == content(tmp_path / "unbroken")


def test_without_links_the_best_is_a_copy(recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refused)
    state = train(recipe(epochs=3), tmp_path / "run")
    best = tmp_path / "run" / "best"
    assert not best.is_symlink()
    assert content(best) == content(tmp_path / "run" / f"step-{state.best_step:08d}")
    assert not list((tmp_path / "run").glob(".*"))


def test_a_persons_folder_with_the_name_of_the_link_stays(recipe: Recipes, tmp_path: Path) -> None:
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "best" / "mine.txt").touch()
    with pytest.raises(OutputError, match=r"best is not of this run, which needs the name\. Rename it"):
        train(recipe(), tmp_path / "run")
    assert (tmp_path / "run" / "best" / "mine.txt").exists()


def test_the_link_to_the_best_is_made_where_a_kill_came_before_it(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as context:
        context.setattr(checkpoint_module, "_link", kill)
        with pytest.raises(KilledError):
            train(recipe(epochs=1, validation=None), tmp_path / "run")
    train(recipe(epochs=1, validation=None), tmp_path / "run")
    assert (tmp_path / "run" / "best").resolve().name == "step-00000003"


def test_a_run_that_was_stopped_many_times_ends_as_an_unbroken_one(recipe: Recipes, tmp_path: Path) -> None:
    chosen = recipe(epochs=3)
    train(chosen, tmp_path / "unbroken")
    rng = np.random.default_rng(5)
    for _ in range(6):
        train(chosen, tmp_path / "run", report=stop_at(int(rng.integers(1, 9)), signal.SIGTERM))
    train(chosen, tmp_path / "run")
    assert content(tmp_path / "run") == content(tmp_path / "unbroken")
    assert scalars(tmp_path / "run") == scalars(tmp_path / "unbroken")
