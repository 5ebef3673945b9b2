"""Peak memory of variants, beyond what the loaded model takes: on a GPU from torch, on a CPU in a new process each."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

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
    """Peak bytes of one run of each variant, beyond those of the loaded model; nothing on other devices."""
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
        loaded = pool.apply(_process_peak, (make, settings, tokens, None))
        return {name: max(0, pool.apply(_process_peak, (make, settings, tokens, name)) - loaded) for name in names}


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _process_peak(make: MakeVariants, settings: BenchSettings, tokens: int, name: str | None) -> int:
    """Peak resident memory of this process after one run, or after loading alone; call it in a new process."""
    variants = make(settings, tokens)
    if name is not None:
        with variants[name].within():
            variants[name].run()
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
