"""Sections of docs/results.md about time."""

from __future__ import annotations

from typing import Any

from report import RESULTS, read_report, sources, table

from vlm_adapters.embedded import embedded_checkpoints

MEBIBYTE = 2**20
BENCH_OF_MODEL, BENCH_ON_GPU = "bench_tiny-qwen2_5_vl", "bench_gpu"
_MEASURED = ("variant", "ratio of the time", "interval", "peak memory")


def after_the_backbone() -> str:
    """Where `adapters ground` spends its time, and what it costs beside a bare script."""
    parts, started = read_report("ground_parts"), read_report("startup")
    seconds = parts["seconds"]
    total = sum(seconds.values())
    rows = [(part, f"{spent:.2f} s", f"{spent / total:.1%}") for part, spent in seconds.items()]
    height, width = parts["size"]
    outside = sum(spent for part, spent in seconds.items() if not part.startswith("start") and "(model)" not in part)
    files = parts.get("all files, two at a time")
    threads = "" if files is None else f" The command writes two files at a time, all of them in {files:.2f} s."
    return f"""## Where grounding spends its time

`adapters ground` on `{parts["model"]}`, an image of {height} x {width} pixels and {parts["phrases"]} phrases.

{table(("part", "time", "share"), rows)}

Start-up left out, this model is so small that drawing and writing are most of the rest: {outside:.2f} s outside the
models, one thing after the other, whatever the model.{threads}
{_beside_a_tower(outside)}
Beside a script that imports the same libraries, loads the same model and runs one pass, `adapters ground` on a small
image takes {started["ground / bare script"]:.2f} times as long (median of {started["turns"]} interleaved turns).

{table(("process", "time"), [(name, f"{spent:.2f} s") for name, spent in started["seconds"].items()])}

{sources("ground_parts", "startup")}"""


def _beside_a_tower(outside: float) -> str:
    """What a share some seconds are beside a vision tower of full width, if that was timed with no other work."""
    report = read_report("tower")
    if "note" in report:
        return ""
    seconds = report["seconds"]["as transformers runs it"]
    height, width = report["image"]
    return f"""{report["layers"]} layers of the vision tower of `{report["model"]}` take {seconds:.1f} s on this CPU
for an image of {width} x {height} pixels (below), so beside these they are at most {outside / (outside + seconds):.1%}.
"""


def bench() -> str:
    """What attention rows cost beside a plain forward pass."""
    names = tuple(f"bench_{name}/bench" for name in ("4_layers_16_rows", "4_layers_300_rows", "28_layers"))
    sections = [section for name in names for section in read_report(name)["sections"]]
    rows = [(section["title"], *_measured(row)) for section in sections for row in section["rows"][1:]]
    return f"""## The price of attention rows

What rows must cost is `rows x tokens x head size` multiplications per head and layer, against
`tokens x tokens x head size` for the pass itself. Ratios are medians over turns in which all variants ran, with their
interval and how often such an interval holds the median; memory is the peak beyond the loaded model.

{table(("language model, random weights", *_MEASURED), rows)}

{sources(*names)}"""


def _measured(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a measurement of `adapters bench`."""
    if row["seconds"] is None:
        return row["variant"], row["note"], "", ""
    low, high = row["interval"]
    memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / MEBIBYTE:,.1f} MiB"
    return row["variant"], f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f} ({row['confidence']:.0%})", memory


def bench_of_model() -> str:
    """Every part of the bench on an embedded model, and on a GPU where it was run on one."""
    shown = _bench_of(BENCH_OF_MODEL)
    on_gpu = _bench_of(BENCH_ON_GPU) if (RESULTS / BENCH_ON_GPU).is_dir() else "Not run on a GPU."
    return f"""## Every part of the bench

{shown}

{on_gpu}"""


def _bench_of(name: str) -> str:
    report = read_report(f"{name}/bench")
    tables = []
    for section in report["sections"]:
        facts = "; ".join(f"{name}: {_fact(value)}" for name, value in section["facts"].items())
        rows = table(_MEASURED, map(_measured, section["rows"]))
        tables.append("\n\n".join([f"**{section['title']}**", rows, *([f"{facts}."] if facts else [])]))
    plots = [f"![{file.stem}](images/{name}/{file.name})" for file in sorted((RESULTS / name).glob("*.png"))]
    shown = "\n\n".join(tables + plots)
    settings = report["settings"]
    # The bench downloads nothing: a published checkpoint has its size alone.
    weights = "" if settings["model"] in embedded_checkpoints() else " with random weights"
    versions = f"torch {report['versions']['torch']}, transformers {report['versions']['transformers']}"
    where = f"{report['machine']}, {report['threads']} threads, {versions}"
    return f"""`{settings["model"]}`{weights} in {settings["dtype"]} on {where}:

{shown}

{sources(f"{name}/bench")}"""


def _fact(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def costs() -> str:
    """What a training would cost at the rates of the benches."""
    names = ("costs", "costs_gpu")
    found = read_report(names[0])["data"]
    counts = [
        (name, *(f"{of[what]:,}" for what in ("images", "sentences", "phrases")), of["source"])
        for name, of in found.items()
    ]
    return f"""## Costs on paper

The backbone's part of a training, from the rates of the benches above. With the bench of another model and machine the
same command gives their hours. Eight epochs through the backbone, all sentences of an image in one sequence, are the
recipe of F-LMM (arXiv 2406.05821); a cache runs the backbone once, over every sentence, and its bytes are those of the
maps.

{_costs_of(names[0])}

{_costs_of(names[1])}

{table(("counted", "images", "sentences", "phrases", "source"), counts)}

{sources(*names)}"""


def _costs_of(name: str) -> str:
    report = read_report(name)
    measured, found = report["measured"], report["data"]
    ways = {kind: list(next(iter(found.values()))[kind]) for kind in ("hours", "bytes")}
    rows = [
        (way, *("-" if of[kind][way] is None else show(of[kind][way]) for of in found.values()))
        for kind, show in (("hours", "{:,.1f} h".format), ("bytes", _gibibytes))
        for way in ways[kind]
    ]
    return f"""`{measured["model"]}` on {measured["machine"]}:

{table(("", *found), rows)}"""


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"


def tower() -> str:
    """The windows of a vision tower of full width, one by one and together."""
    report = read_report("tower")
    height, width = report["image"]
    low, high = report["interval"]
    rows = [(name, f"{spent:.1f} s", report["calls of the kernel"][name]) for name, spent in report["seconds"].items()]
    return f"""## Windows of a vision tower of full width

{report["layers"]} layers of the vision tower of `{report["model"]}` (width {report["width"]:,}) with random weights in
{report["dtype"]}, an image of {width} x {height} pixels, {report["patches"]:,} patches,
on {_threads(report["threads"])}. Together, the windows take {report["ratio"]:.3f} ({low:.3f} to {high:.3f},
{report["confidence"]:.0%}) of the time, the median of {report["turns"]} interleaved turns. On a GPU each call
has to be launched: above.

{table(("", "time", "calls of the kernel"), rows)}

{sources("tower")}"""


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def half_precision() -> str:
    """What masks lose when Segment Anything encodes images in half precision."""
    report = read_report("sam_half")
    names = list(next(iter(report["found"]["scenes"].values())))
    columns = [(images, dtype) for images, of in report["found"].items() for dtype in of]
    rows = [(name, *(report["found"][images][dtype][name] for images, dtype in columns)) for name in names]
    return f"""## Segment Anything in half precision

Coarse masks of two photographs and of {report["scenes"]} held-out scenes (`{report["model"]}`), refined by MobileSAM as
it is, with its image encoder under autocast. IoU of the masks with those of an encoder in float32 and with the truth;
the time is a share of that in float32, on a CPU. Where a CUDA device has bfloat16 the encoder uses it unasked;
`half_precision = False` of a `SegmentAnything` turns it off.

{table(("", *(f"{images}, {dtype}" for images, dtype in columns)), rows)}

{sources("sam_half")}"""
