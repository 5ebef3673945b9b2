"""`adapters bench` as a user sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vlm_adapters.cli import main
from vlm_adapters.inspection.bench.measure import Measurement, Section

SECTION = Section(
    "rows",
    "Rows: 9 tokens",
    (Measurement("plain pass", 0.1, 1.0, (1.0, 1.0), 0.98, 7, 2**20), Measurement("eager", note="needs 5 GB")),
    {"rows": 4},
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command; what is measured is given."""

    def run(*arguments: str, measured: Callable[[], Iterator[Section]] = lambda: iter([SECTION])) -> int:
        monkeypatch.setattr("vlm_adapters.inspection.bench.run.run_bench", lambda _: measured())
        monkeypatch.setattr("sys.argv", ["adapters", "bench", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return run


def test_table_shows_intervals_and_what_was_skipped(
    bench: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench() == 0
    printed = capsys.readouterr().out
    assert "1.000-1.000 (98%)" in printed
    assert "needs 5 GB" in printed
    assert "rows: 4" in printed


def test_ctrl_c_keeps_what_was_measured(bench: Callable[..., int], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def interrupted() -> Iterator[Section]:
        yield SECTION
        raise KeyboardInterrupt

    assert bench("--out", str(tmp_path / "out"), measured=interrupted) == 130
    content = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert [section["title"] for section in content["sections"]] == ["Rows: 9 tokens"]


def test_report_is_there_after_every_comparison(bench: Callable[..., int], tmp_path: Path) -> None:
    """A process that is killed keeps what was measured before."""
    pytest.importorskip("matplotlib")
    found = []

    def watched() -> Iterator[Section]:
        yield SECTION
        found.append(json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")))

    assert bench("--out", str(tmp_path), measured=watched) == 0
    assert [section["title"] for section in found[0]["sections"]] == ["Rows: 9 tokens"]


def test_json_is_the_report(bench: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--json", "--layers", "3", "--seconds", "7.5") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["settings"]["sizes"]["layers"] == 3
    assert content["settings"]["seconds"] == 7.5
    assert content["command"] == "adapters bench --json --layers 3 --seconds 7.5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "torch finds no GPU for --device cuda. Give --device cpu"),
        (["--device", "tpu9"], "There is no device 'tpu9'"),
        (["--dtype", "int7"], "There is no dtype 'int7'. Give float32, bfloat16 or float16"),
        (["--image-tokens", "many"], "--image-tokens many is not a list of numbers"),
    ],
)
def test_mistakes_are_one_line(
    bench: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert bench(*arguments) == 1
    assert message in capsys.readouterr().err
