"""Trackers of experiments get the numbers of the log, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import LoggerType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vlm_adapters.errors import RecipeError
from vlm_adapters.training import trackers
from vlm_adapters.training.checkpoint import RunState
from vlm_adapters.training.log import RunLog, Step, read_log
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.trackers import check_tracker

STEPS = [Step(number, 2, 0.5 / number, 1e-3, 1.5, 0.1) for number in (1, 2)]
MINIMAL: dict[str, Any] = {"model": "tiny-llava", "train": ["scenes:count=2"]}


def logged(out: Path, tracker: str) -> None:
    out.mkdir(exist_ok=True)
    log = RunLog(out, RunState(recipe=Recipe(**MINIMAL, tracker=tracker), total_steps=2))  # type: ignore[arg-type]
    for step in STEPS:
        log.step(step)
    log.validation(2, 0.75)
    log.close()


def test_tensorboard_reads_every_number_of_the_log(tmp_path: Path) -> None:
    logged(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("loss", "learning_rate", "grad_norm", "validation_mean_iou"):
        expected = [(line["step"], line[name]) for line in read_log(tmp_path / "run") if name in line]
        assert expected
        assert [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)] == expected


def test_no_tracker_leaves_the_log_alone(tmp_path: Path) -> None:
    logged(tmp_path / "run", "none")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.jsonl"]


class StandIn(GeneralTracker):  # type: ignore[misc]  # accelerate has no types
    """Keeps what accelerate gives to a tracker."""

    name = "wandb"
    requires_logging_directory = False
    started: ClassVar[list[dict[str, Any]]] = []
    sent: ClassVar[list[tuple[int | None, dict[str, Any]]]] = []

    def __init__(self, run_name: str, **options: Any) -> None:
        super().__init__()
        self.started.append({"project": run_name, **options})

    @property
    def tracker(self) -> object:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.started[-1]["config"] = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.sent.append((step, values))

    def finish(self) -> None:
        self.sent.append((None, {}))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", StandIn)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [LoggerType.WANDB])
    monkeypatch.setattr(trackers, "find_spec", lambda _: object())
    monkeypatch.setattr(StandIn, "started", [])
    monkeypatch.setattr(StandIn, "sent", [])
    return StandIn


def test_a_tracker_of_accelerate_gets_the_recipe_and_every_number(tmp_path: Path, stand_in: type[StandIn]) -> None:
    logged(tmp_path / "run", "wandb")
    (started,) = stand_in.started
    assert (started["project"], started["name"], started["resume"]) == ("vlm-adapters", "run", "allow")
    assert started["config"]["model"] == "tiny-llava"
    steps = [(line.pop("step"), line) for line in read_log(tmp_path / "run")]
    assert stand_in.sent == [*steps, (None, {})]


def test_the_same_folder_continues_the_same_run_of_a_tracker(tmp_path: Path, stand_in: type[StandIn]) -> None:
    for name in ("run", "run", "other"):
        logged(tmp_path / name, "wandb")
    first, again, other = (started["id"] for started in stand_in.started)
    assert first == again != other


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_named(tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Callable[[str], None] = lambda _: None  # noqa: E731 - a name for its type
    monkeypatch.setattr(trackers, "find_spec", missing)
    with pytest.raises(RecipeError, match=rf"^tracker={tracker} needs a package: pip install {tracker}\. Or take "):
        check_tracker(tracker)


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(RecipeError, match="tracker: Input should be 'tensorboard', 'wandb', 'trackio' or 'none'"):
        Recipe.read("scenes", ["tracker=mlflow"])
