"""Costs on paper are the rates of a bench times what there is to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest


def row(variant: str, seconds: float | None) -> dict[str, object]:
    return {"variant": variant, "seconds": seconds}


BENCH = {
    "machine": "a machine",
    "date": "2026-01-01",
    "settings": {"model": "a model"},
    "sections": [
        {
            "part": "rows",
            "rows": [row("plain pass", 1.0), row("rows", 1.1), row("output_attentions", None)],
            "facts": {"layers": 4, "heads": 8, "image tokens": 100},
        },
        {"part": "layers", "rows": [row("1 layer", 0.7), row("2 layers", 0.8), row("4 layers", 1.0)]},
        {"part": "sentences", "rows": [row("1 sentence", 1.0), row("4 sentences", 1.6)]},
    ],
}


@pytest.fixture
def costs(script: Any) -> Any:
    return script("costs")


def test_rates_are_those_of_the_bench(costs: Any) -> None:
    rates = costs.Rates.of(BENCH)
    assert (rates.plain, rates.rows, rates.eager, rates.channels, rates.cells) == (1.0, 1.1, None, 32, 100)
    assert rates.half == pytest.approx(0.8)
    assert [rates.of_image(sentences) for sentences in (1, 2, 4)] == pytest.approx([1.0, 1.2, 1.6])


def test_hours_are_counted_for_every_way(costs: Any) -> None:
    data = costs.DataSet(images=3600, sentences=7200, phrases=7200, source="made up")
    assert list(costs.hours(costs.Rates.of(BENCH), data).values()) == [
        None,
        pytest.approx(8),  # epochs of one pass per image
        pytest.approx(2 * 1.1),
        pytest.approx(1.2),
        pytest.approx(1.2 * 0.8),
    ]


def test_bytes_are_those_of_float16_maps(costs: Any) -> None:
    data = costs.DataSet(images=1, sentences=1, phrases=3, source="made up")
    assert list(costs.cache_bytes(costs.Rates.of(BENCH), data).values()) == [3 * 32 * 100 * 2, 3 * 16 * 100 * 2]


def test_the_report_has_rates_hours_and_bytes(
    costs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, report = tmp_path / "bench.json", tmp_path / "costs.json"
    bench.write_text(json.dumps(BENCH), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["costs.py", str(bench), "--report", str(report)])
    costs.main()
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["measured"] == {"machine": "a machine", "date": "2026-01-01", "model": "a model"}
    assert content["data"]["PNG, training set"]["images"] == 133_103
    assert "10 million web images" in capsys.readouterr().out
