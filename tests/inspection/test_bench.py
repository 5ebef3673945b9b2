"""The bench: medians and their intervals, turns, sections, and the language model with random weights."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from vlm_adapters.errors import CheckpointError, OptionError
from vlm_adapters.inspection.bench import peaks
from vlm_adapters.inspection.bench.language_model import make_variants
from vlm_adapters.inspection.bench.measure import Measurement, Section, Variant, median_interval, take_turns
from vlm_adapters.inspection.bench.peaks import memory_facts, peaks_of
from vlm_adapters.inspection.bench.plots import check_matplotlib, write_plots
from vlm_adapters.inspection.bench.run import as_dict, run_bench
from vlm_adapters.inspection.bench.settings import BenchSettings, LanguageModelSizes

TINY = BenchSettings(repeats=2, sizes=LanguageModelSizes(layers=2, heads=7, head_size=8, length=64, rows=4))


def coverage(low: int, high: int, count: int) -> float:
    """How often the median of a coin's values lies between two order statistics: all outcomes, counted."""
    outcomes = itertools.product((0, 1), repeat=count)  # 1: the value is above the true median
    return sum(low < count - sum(outcome) <= high - 1 for outcome in outcomes) / 2**count


@pytest.mark.parametrize("count", range(1, 13))
def test_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    low, high, confidence = median_interval([float(value) for value in reversed(range(count))])
    assert low <= (count - 1) / 2 <= high
    assert confidence == pytest.approx(coverage(int(low), int(high) + 1, count))


@pytest.mark.parametrize("count", range(6, 13))
def test_interval_is_the_narrowest_with_95_percent(count: int) -> None:
    low, high, confidence = median_interval([float(value) for value in range(count)])
    assert confidence >= 0.95
    assert low + 1 > high - 1 or coverage(int(low) + 1, int(high), count) < 0.95


def test_ratio_is_to_the_first_variant_in_the_same_turn() -> None:
    slow = Variant(lambda: time.sleep(0.03))
    first, second = take_turns({"base": Variant(lambda: time.sleep(0.01)), "slow": slow}, device="cpu", repeats=3)
    assert first.ratio == 1
    assert second.ratio is not None
    assert second.interval is not None
    assert 1.5 < second.ratio < 6
    assert second.interval[0] <= second.ratio <= second.interval[1]
    assert second.turns == 3


def test_first_turn_warms_up_and_is_not_counted() -> None:
    calls: list[str] = []
    variants = {name: Variant(lambda name=name: calls.append(name)) for name in ("a", "b")}  # type: ignore[misc]
    rows = take_turns(variants, device="cpu", repeats=2)
    assert [row.turns for row in rows] == [2, 2]
    assert calls == ["b", "a", "a", "b", "b", "a"]


def test_time_that_is_up_ends_after_three_turns() -> None:
    (row,) = take_turns({"a": Variant(lambda: None)}, device="cpu", repeats=50, seconds=0)
    assert row.turns == 3


def test_variant_that_needs_too_much_memory_is_left_out_with_a_note() -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError

    fine, failed = take_turns({"a": Variant(lambda: None), "b": Variant(fail)}, device="cpu", repeats=2)
    assert fine.turns == 2
    assert (failed.seconds, failed.note) == (None, "out of memory")


def test_language_model_is_measured_in_all_variants() -> None:
    (section,) = run_bench(TINY)
    assert [row.variant for row in section.rows] == ["plain pass", "rows", "rows and states", "output_attentions"]
    assert all(row.seconds and row.peak_bytes is not None for row in section.rows)
    assert section.title == "Language model: 2 layers of width 56, 64 tokens, 4 rows"


def test_memory_beside_the_maps_is_compared_with_a_plain_pass() -> None:
    rows = [Measurement("plain pass", 0.1, peak_bytes=50 * 2**20), Measurement("rows", 0.1, peak_bytes=57 * 2**20)]
    assert memory_facts(rows, 6 * 2**20) == {
        "maps returned, MiB": 6,
        "peak of rows without these maps, times the plain pass": 1.02,
    }
    assert memory_facts([Measurement("plain pass", 0.1)], 2**19) == {"maps returned, MiB": 0.5}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system cannot forget a peak")
def test_a_peak_is_that_of_a_warm_run() -> None:
    found = peaks_of(make_growing, TINY, 0, {"first run only": Variant(lambda: None), "always": Variant(lambda: None)})
    assert found["first run only"] < 2**23
    assert found["always"] == pytest.approx(2**26, rel=0.1)


def make_growing(_: BenchSettings, __: int) -> dict[str, Variant]:
    """A variant that makes 64 MiB when it runs first, and keeps them; and one that makes them in every run."""
    kept: list[torch.Tensor] = []

    def first() -> None:
        if not kept:
            kept.append(torch.ones(2**24))

    return {"first run only": Variant(first), "always": Variant(lambda: torch.ones(2**24).sum())}


def test_eager_is_left_out_on_demand() -> None:
    assert "output_attentions" not in make_variants(replace(TINY, eager=False), 0)


def test_report_has_the_machine_the_versions_and_every_number() -> None:
    section = Section("rows", "title", (Measurement("plain pass", 1.0, 1.0, (0.9, 1.1), 0.95, 7, 5),), {"a": 1}, 9)
    content = as_dict(TINY, [section], "adapters bench")
    assert set(content) == {"command", "date", "machine", "threads", "versions", "settings", "sections"}
    assert content["settings"] == asdict(TINY)
    assert content["sections"] == [asdict(section)]
    assert content["versions"]["torch"] == torch.__version__.split("+")[0]  # type: ignore[index]


def test_unknown_part_is_an_error_that_names_all() -> None:
    with pytest.raises(OptionError, match=r"no part 'speed'\. Give some of rows, tower"):
        list(run_bench(replace(TINY, model="x", parts=("speed",))))


def test_model_that_would_be_downloaded_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"sizes of 'some/thing', and nothing is downloaded. Give an embedded"):
        list(run_bench(replace(TINY, model="some/thing")))


def test_plots_show_what_was_measured_over_several_numbers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [Section("rows", "t", (Measurement("plain pass", 0.1, peak_bytes=9),), tokens=n) for n in (10, 20)]
    layers = Section("layers", "t", (Measurement("1 layer", 0.1), Measurement("2 layers", 0.2)))
    files = write_plots([*rows, layers, Section("sentences", "t", (Measurement("1 sentence", 0.1),))], tmp_path)
    assert [file.name for file in files] == ["tokens.png", "layers.png"]
    for file in files:
        with Image.open(file) as image:
            assert image.width > 100


def test_plots_without_matplotlib_are_an_error_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_adapters.inspection.bench.plots.find_spec", lambda _: None)
    with pytest.raises(OptionError, match=r"need matplotlib.*vlm-adapters\[supervision\]"):
        check_matplotlib()


def test_where_there_is_no_resource_module_the_peak_is_that_of_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(peak_wset=3 * 2**20)
    windows = SimpleNamespace(Process=lambda: SimpleNamespace(memory_info=lambda: memory))
    monkeypatch.setitem(sys.modules, "psutil", windows)
    monkeypatch.setattr(peaks, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(peaks, "Path", lambda _: SimpleNamespace(is_file=lambda: False))
    assert peaks.peak_so_far() == 3 * 2**20
