"""Sections of docs/results.md about training: the cache, the recipe, and how a training is fed."""

from __future__ import annotations

from report import read_report, sources, table

LARGE = "random, 0.3 B"
"""The larger backbone of `measure_cache.py`."""


def cache() -> str:
    """Training from a cache, against the backbone in the loop."""
    found = read_report("cache")
    large, small, seven = found[LARGE], found["tiny-qwen2_5_vl"], found["arithmetic, 7 B"]
    epochs = [f"seconds of an epoch, {way}" for way in ("backbone in the loop", "from the cache")]
    shares = ("cached / in the loop", "cached / in the loop, processor seconds")
    rows = [
        (name, *(f"{report[epoch]:.1f} s" for epoch in epochs), *(f"{report[share]:.1%}" for share in shares))
        for name, report in (("random weights, 0.3 billion parameters", large), ("`tiny-qwen2_5_vl`", small))
    ]
    head = ("backbone", "epoch, backbone in the loop", "epoch, from the cache", "share", "share of processor time")
    differences = [report["largest difference of the loss curves"] for report in (large, small)]
    return f"""## Training from a cache

The same samples and the same steps, with the backbone in the loop and from a cache, in one process; epochs after the
first. The large backbone sees about {large["image tokens, mean"]:.0f} image tokens; the embedded one is smaller
than the work of its decoder. The largest difference between the loss curves is {max(differences):g}.

{table(head, rows)}

For {seven["image tokens"]:.0f} image tokens of a model of 7 billion parameters, by arithmetic and not by measurement,
the decoder's operations are {seven["operations, from the cache / in the loop"]:.2%} of all.

{sources("cache")}"""


def large_cache() -> str:
    """Memory while a large cache is built, and the time to read a sample."""
    report = read_report("cache_memory")
    growth = report["most memory, last quarter / first"] - 1
    return f"""## A cache of {report["scenes"]:,} scenes

While it is built, the last quarter needs {growth:.1%} more memory than the first. A sample is read in
{report["median ms to read a sample, large cache"]:.2f} ms, against
{report["median ms to read a sample, small cache"]:.2f} ms from a cache of {report["samples of the small cache"]}.

{sources("cache_memory")}"""


def feeding() -> str:
    """How near the ways of running a backbone come to its bare passes."""
    report = read_report("feeding")
    ways = {name: way for name, way in report.items() if isinstance(way, dict)}
    rows = [(name, way["samples a second"], f"{way['share of the bare rate']:.2f}") for name, way in ways.items()]
    return f"""## Feeding the backbone

`{report["model"]}` on {report["samples"]} scenes, on {report["device"]}. *Model alone*: its passes on inputs that were
prepared before. *Preparing alone*: reading samples and making inputs, without a pass. *One thread*: `workers=0`. On a
CPU preparing takes the cores that the passes need, so little is won; it has not been measured on a GPU.

{table(("", "samples a second", "of the rate of the model alone"), rows)}

{sources("feeding")}"""
