"""Peak memory of variants when everything is warm: on a GPU from torch, on a CPU in a new process each.

A first run loads kernels and fills caches, which takes a few megabytes once. Where the system can forget the peak so
far, which Linux can, only a second run is counted.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vlm_adapters.inspection.bench.measure import Measurement, Variant, is_gpu, synchronize, take_turns
from vlm_adapters.inspection.bench.settings import BenchSettings

MakeVariants = Callable[[BenchSettings, int], dict[str, Variant]]
"""A function of a module, which makes variants from settings and a number of tokens."""


def time_and_memory(
    make: MakeVariants, settings: BenchSettings, tokens: int, variants: Mapping[str, Variant]
) -> tuple[Measurement, ...]:
    """Time variants in turn; then, when everything is warm, the peak memory of each.

    Args:
        make: What made the variants; a new process makes them again.
        settings: Its settings.
        tokens: Its number of tokens.
        variants: Those to measure; the first is what the others are compared with.
    """
    rows = take_turns(variants, device=settings.device, repeats=settings.repeats, seconds=settings.seconds)
    measured = {row.variant: variants[row.variant] for row in rows if row.seconds is not None}
    peaks = peaks_of(make, settings, tokens, measured)
    return tuple(replace(row, peak_bytes=peaks.get(row.variant)) for row in rows)


def peaks_of(
    make: MakeVariants, settings: BenchSettings, tokens: int, variants: Mapping[str, Variant]
) -> dict[str, int]:
    """Peak bytes of one run of each variant, beyond what was held before it; nothing on other devices."""
    if is_gpu(settings.device):
        return {name: _on_gpu(variant, settings.device) for name, variant in variants.items()}
    if torch.device(settings.device).type != "cpu":
        return {}
    return _in_processes(make, settings, tokens, variants)


def _on_gpu(variant: Variant, device: str) -> int:
    with variant.within():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        variant.run()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before


def _in_processes(make: MakeVariants, settings: BenchSettings, tokens: int, names: Collection[str]) -> dict[str, int]:
    # With this, glibc returns freed memory at once; otherwise peaks vary by a tenth between runs.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "131072")
    # Forked from a process that has imported everything and loaded nothing; Windows cannot fork.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([make.__module__])
    with context.Pool(1, _leave_ctrl_c_to_the_parent, maxtasksperchild=1) as pool:
        return {name: pool.apply(_process_peak, (make, settings, tokens, name)) for name in names}


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _process_peak(make: MakeVariants, settings: BenchSettings, tokens: int, name: str) -> int:
    """Peak resident memory of one run beyond what was held before it; call it in a new process."""
    variant = make(settings, tokens)[name]
    with variant.within():
        before = peak_so_far()
        variant.run()
        gc.collect()
        if _forget_peak():
            before = peak_so_far()
            variant.run()
    return max(0, peak_so_far() - before)


def _forget_peak() -> bool:
    """Let the peak begin with what is held now; whether the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_so_far() -> int:
    """The most resident bytes of this process."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    if (of_linux := next((line for line in lines if line.startswith("VmHWM")), None)) is not None:
        return int(of_linux.split()[1]) * 1024  # getrusage never forgets
    if os.name == "nt":
        process: Any = import_module("psutil").Process()
        return int(process.memory_info().peak_wset)
    resource: Any = import_module("resource")  # Windows has none
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def memory_facts(rows: Sequence[Measurement], maps_bytes: int) -> dict[str, float]:
    """The size of the maps, and by what factor the rest of the peak is that of a plain pass.

    Args:
        rows: Measurements with peaks, of `plain pass` and `rows` among others.
        maps_bytes: Bytes of the maps that `rows` returns.
    """
    peaks = {row.variant: row.peak_bytes for row in rows}
    plain, with_rows = peaks.get("plain pass"), peaks.get("rows")
    facts = {"maps returned, MiB": round(maps_bytes / 2**20, 1)}
    if plain and with_rows:
        facts["peak of rows without these maps, times the plain pass"] = round((with_rows - maps_bytes) / plain, 3)
    return facts
