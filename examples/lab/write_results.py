"""Write docs/results.md from the reports in examples/lab/results: `make results` runs this."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from report import RESULTS, read_report, sources, table
from results_bulk import bulk
from results_claims import claims
from results_hard_scenes import conversation, hard_scenes
from results_look_again import look_again
from results_memory import full_size, large_images, plan
from results_presence import presence
from results_speed import after_the_backbone, bench, bench_of_model, costs, half_precision, tower
from results_steering import steering
from results_unlike_scenes import unlike_scenes

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
MODELS = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")
MEBIBYTE = 2**20
LARGE = "random, 0.3 B"
"""The larger backbone of `measure_cache.py`."""

HEAD = """# Results

Every number on this page comes from a report in `examples/lab/results`;
`make results` writes the page from them. The models are the tiny embedded ones or have random weights:
nothing has been run on published checkpoints, because no model hub could be reached where this was written."""


def embedded_models() -> str:
    """Masks of the embedded decoders, with their controls."""
    merged = [read_report(f"{model}_scenes") | read_report(f"{model}_refiner") for model in MODELS]
    names = (
        "mean IoU",
        "mean IoU, refined",
        "boundary F (2 px), coarse",
        "boundary F (2 px), refined",
        "mean IoU, ceiling of the grid",
        "mean IoU, images swapped",
        "mean IoU, random weights",
        "mean IoU, best blind guess",
        "shape words right",
        "shape words right, best of the five, blank image",
        "shape words right, drawn evenly",
    )
    rows = [(name, *(report[name] for report in merged)) for name in names]
    reports = [f"{model}_{what}" for what in ("scenes", "refiner") for model in MODELS]
    return f"""## Embedded models

Measured on {merged[0]["scenes"]} scenes on which nothing was trained, chosen or monitored.

{table(("", *(f"`{model}`" for model in MODELS)), rows)}

*Ceiling of the grid*: the true masks, pooled on the grid. *Images swapped*: every image replaced by that of another
scene. *Random weights*: the same decoder trained on the same backbone, untrained. *Refined*: by a refiner on MobileSAM,
trained over the same U-Net and measured at the images' full size. The vision towers were trained with labels from the
masks; no loss touched the attention of the language models (`vlm_adapters/embedded/tiny-qwen2_5_vl/README.md`).

`python examples/lab/train_tiny_backbone.py NAME`, `train_on_hard_scenes.py NAME` and
`train_tiny_decoder.py --model NAME` make a model and its decoder anew.

{sources(*reports)}"""


LEVELS = ("high", "fair", "low")
HEADS_AT_RANDOM = tuple(f"heads of the {kind} profile, random weights" for kind in ("labelled", "label-free"))


def heads() -> str:
    """Masks from a few attention heads."""
    reports = [read_report(f"{model}_heads") for model in MODELS]
    names = ("labelled", "label-free", "best head alone", "a head at random")
    rows = [
        (f"{measure}, {name}", *(report[f"{measure}, {name}"] for report in reports))
        for measure in ("mean IoU", "pointing game")
        for name in names
    ]
    rows += [
        (words, *(report[name] for report in reports))
        for words, name in (
            ("label-free / labelled, mean IoU", "label-free / labelled, mean IoU"),
            ("absent things that are found all the same", "found, labelled, absent things"),
            *((f"maps of {level} reliability", f"maps of {level} reliability") for level in LEVELS),
            *((f"their peaks on the thing, {level}", f"peak on the thing, {level}") for level in LEVELS),
            *((name, name) for name in HEADS_AT_RANDOM),
        )
    ]
    return f"""## Masks without a decoder

The attention of the heads that `adapters calibrate` chooses, on {reports[0]["scenes"]} held-out scenes. *Labelled*:
chosen on scenes with masks; *label-free*: on scenes without. Things are found although they are not in the image: such
masks hardly notice an absence. *Reliability* is that of [attention maps](attention.md), whose peaks are those of the
leading heads together. With random weights no head follows phrases, and profiles should have none.

{table(("", *(f"`{model}`" for model in MODELS)), rows)}

{sources(*(f"{model}_heads" for model in MODELS))}"""


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


def recipe() -> str:
    """The recipe `scenes`, against the embedded decoders."""
    reports = {model: read_report(f"{model}_recipe") for model in MODELS}
    rows = [
        (f"`{model}`", f"{report['share']:.1%}", report["mean IoU"], f"{report['seconds, to train']:.0f} s")
        for model, report in reports.items()
    ]
    head = ("backbone", "mean IoU, share of the embedded decoder's", "mean IoU", "time to train")
    return f"""## The recipe `scenes`

Decoders trained by the recipe, measured on the held-out scenes.

{table(head, rows)}

{sources(*(f"{model}_recipe" for model in MODELS))}"""


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


def photos() -> str:
    """Photographs whose coarse masks are refined by MobileSAM, untrained."""
    report = read_report("photos")
    ways = {name: way for name, way in report.items() if isinstance(way, dict)}
    first = next(iter(ways.values()))
    head = [""]
    for part, what in (("large", f" of {report['least pixels of a large thing']} pixels or more"), ("all", "")):
        head += [f"{first[part]['count']} things{what}: mean IoU", "boundary F (2 px)"]
    rows = [
        (name, *(f"{way[part][measure]:.3f}" for part in ("large", "all") for measure in ("iou", "boundary")))
        for name, way in ways.items()
    ]
    return f"""## Refining on photographs

Coarse masks of things in two real photographs, refined by MobileSAM, untrained (`pip install "vlm-adapters[sam]"`). The
coarse mask is the truth on 24 x 24 cells. Weights and numbers of prompts were chosen on synthetic scenes with a look at
these photographs; which kinds of prompts there are was tried on them, too.

{table(head, rows)}

{sources("photos")}"""


def points() -> str:
    """Partly hidden things from boxes, alone and with points."""
    report = read_report("points")
    parts = [
        table(
            ("", f"{name}, {report[name]['things']} things: mean IoU"),
            [(way, f"{value:.3f}") for way, value in report[name].items() if way != "things"],
        )
        for name in ("crossed by a bar", "hidden by others", "as they are")
    ]
    return f"""## Boxes and points

Things that are partly hidden in held-out scenes, segmented by MobileSAM, untrained: from the true box alone, and with
the map of the phrase, which gives five points inside, five beside it, and a mask as prompts. The maps are the truth on
a grid of cells, or those of the heads of `{report["model"]}`. Where a map lies elsewhere, the box alone decides.

{parts[0]}

{parts[1]}

Whole things: the masks of its heads and of its decoder, refined the same way. Settings were chosen on scenes of another
seed.

{parts[2]}

{sources("points")}"""


def video() -> str:
    """Shapes followed through videos."""
    report = read_report("video")
    names = ("in the video", "in the video, every frame twice", "frames alone", "the first mask kept")
    return f"""## Video

A window moves over {report["scenes"]} held-out scenes, {report["frames"]} frames each: {report["phrases"]} phrases.
`tiny-qwen2_5_vl` and its decoder were trained on still images. Two frames share a grid; where every frame is given
twice, no two different ones do.

{table(("", "mean IoU"), [(name, report[name]) for name in names])}

{sources("video")}"""


def hostile() -> str:
    """Hostile data files and images."""
    report = read_report("hostile_data")
    names = ("inputs", "held", "typed errors", "read", "anything else")
    rows = [(name, report[name]) for name in (*names, "most seconds of processor time", "most MiB above the start")]
    doors = ", ".join(f"{door} {count}" for door, count in report["by door"].items())
    return f"""## Hostile data files and images

Every value of every file of a set replaced by awkward ones, files cut and flipped, pipes, devices and links where files
belong, and the known bombs; each in a process of its own ({doors}). An input holds if it ends in a typed error or is
read, within 5 seconds of processor time and 1 GiB above the process's start.

{table(("", ""), rows)}

{sources("hostile_data")}"""


def gpu() -> str:
    """The check on a GPU, as it ran."""
    report = read_report("gpu_check_h200")
    findings = report["findings"]
    verdict = {True: "yes", False: "**no**", None: "-"}
    parts = dict.fromkeys(finding["part"] for finding in findings)
    counts = [
        (part, *(sum(f["part"] == part and f["good"] is good for f in findings) for good in verdict)) for part in parts
    ]
    shown = [(f["what"], f["found"], f["bar"], verdict[f["good"]]) for f in findings if _is_shown(f)]
    kernels = read_report("gpu_kernels_h200")["findings"]
    again = [(f["what"], f["found"], f["bar"], verdict[f["good"]]) for f in kernels if _is_shown(f)]
    versions = report["versions"]
    return f"""## On a GPU

One run on an {report["device"]} with torch {versions["torch"]} and transformers {versions["transformers"]}, in
{report["seconds"]:.0f} s. [On a GPU](gpu.md) says what it means and what has not been run.

{table(("part", "bars met", "bars missed", "not run or without a bar"), counts)}

Kernels, memory, and for each embedded model what differs most from the CPU in float32:

{table(("", "found", "bar", "met"), shown)}

The kernels once more, compared in float32:

{table(("", "found", "bar", "met"), again)}

{sources("gpu_check_h200", "gpu_kernels_h200")}"""


def hostile_models() -> str:
    """Hostile checkpoints and texts, and memory over many steps."""
    checkpoints, texts, memory = (read_report(name) for name in ("hostile_checkpoints", "hostile_texts", "memory"))
    kinds = ("accepted", "typed", "fell")
    doors = [(door, *(count.get(kind, 0) for kind in kinds)) for door, count in checkpoints["doors"].items()]
    families = [
        (f"`{name}`", *(count.get(kind, 0) for kind in ("encoded", "typed error")))
        for name, count in texts["families"].items()
    ]
    grown = [
        (f"{memory[what]['steps']} {what}", *(memory[what][f"MiB, {part} quarter"] for part in ("first", "last")))
        for what in ("groundings", "loads")
    ]
    return f"""## Hostile checkpoints and texts

{checkpoints["cases"]} copies of embedded models with one thing changed, each in a process of its own: a field set to a
hostile value, a damaged file, a pipe or device in place of one, a template that does not end. Every one has to give
maps or a typed error within 5 seconds and 1 GiB; {len(checkpoints["fell"])} did not. The most that any took were
{checkpoints["most processor seconds"]} s of processor time and {checkpoints["most MiB above the start"]} MiB.

{table(("what was changed", "accepted, finite maps", "typed error", "fell"), doors)}

{texts["texts"]:,} texts of control tokens, surrogates, combining, right-to-left and zero-width characters:
{len(texts["faults"])} moved the image's tokens, gained a control token or raised an error without a type.

{table(("family", "encoded", "typed error"), families)}

Memory of one process, in MiB:

{table(("steps", "first quarter", "last quarter"), grown)}

{sources("hostile_checkpoints", "hostile_texts", "memory")}"""


def _is_shown(finding: dict[str, Any]) -> bool:
    chain = finding["part"] == "chain" and finding["what"].endswith("attention, float32")
    return chain or finding["part"] in ("kernels", "memory")


def interruptions() -> str:
    """Commands that were killed, and files in which bits were flipped."""
    kills, flips = read_report("kills")["kills"], read_report("flipped_bits")
    names = [name for name in next(iter(kills.values())) if not name.startswith("file events")]
    checking = flips["checking"]
    return f"""## Killed and damaged

Every trial is a process that was ended by SIGKILL, once or twice, at a random time or right before a file event. The
same command then ran to its end; equal means the same bytes of every file and the same scalars in TensorBoard.

{table(("", *names), [(command, *(row[name] for name in names)) for command, row in kills.items()])}

Single bits flipped in what an earlier command wrote; noticed means that the next command ends with one line that names
the file and says how to go on:

{table(("", "flipped", "noticed"), [(kind, row["flipped"], row["noticed"]) for kind, row in flips["flips"].items()])}

Comparing a cache of {checking["bytes of the cache"] / MEBIBYTE:,.0f} MiB with its digests, once per run, takes
{checking["seconds of checking, once per run"]:.2g} s, {checking["share of one epoch"]:.1%} of one epoch.

{sources("kills", "flipped_bits")}"""


def discovery() -> str:
    """Layouts found by probing, against the published rules."""
    report = read_report("discovery")
    names = ("sizes", "found", "exact", "wrong", "least score", "passes per size", "rule")
    rows = [(f"`{row['family']}`", *(row[name] for name in names)) for row in report["families"]]
    refused = [f"`{row['family']}`: {row['reason']}" for row in report["refused"]]
    missed = [
        f"`{row['family']}` at {size}: {why}" for row in report["families"] for size, why in row["not exact"].items()
    ]
    return f"""## Layouts found without an adapter

[`adapters discover`](discover.md) on the model of every family that has an adapter, with its stock processor: tiny ones
with random weights, and the embedded ones, which are trained. *Found*: proven on held-out cells; *exact*: every token
in its cell, and every side of every cell within a quarter of a cell of the published rule; *wrong*: found and not
exact. The thresholds of the method were set on these same families.
{report["exact"]} of {report["sizes"]} are exact ({report["share exact"]:.1%}), {report["found wrongly"]} found wrongly.

{table(("", *names), rows)}

Not found: {"; ".join(missed)}.

Without a grid: {"; ".join(refused)}

{sources("discovery")}"""


SECTIONS = (
    embedded_models,
    partial(hard_scenes, MODELS),
    partial(presence, MODELS),
    unlike_scenes,
    claims,
    conversation,
    heads,
    cache,
    recipe,
    large_cache,
    feeding,
    large_images,
    after_the_backbone,
    half_precision,
    photos,
    points,
    look_again,
    steering,
    video,
    hostile,
    hostile_models,
    bench,
    bench_of_model,
    tower,
    costs,
    full_size,
    plan,
    interruptions,
    bulk,
    discovery,
    gpu,
)


def page() -> str:
    """The whole page."""
    return "\n\n".join([HEAD, *(section() for section in SECTIONS)]) + "\n"


def copy_plots() -> None:
    """Copy the plots of the bench to where the site finds them."""
    for plot in sorted(RESULTS.glob("*/*.png")):
        folder = PAGE.parent / "images" / plot.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plot, folder / plot.name)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    copy_plots()
