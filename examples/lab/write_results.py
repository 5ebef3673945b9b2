"""Write docs/results.md from the reports in examples/lab/results: `make results` runs this."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from report import RESULTS, read_report, sources, table
from results_bulk import bulk
from results_claims import claims
from results_damage import hostile, hostile_models, interruptions
from results_hard_scenes import conversation, hard_scenes
from results_look_again import look_again
from results_memory import full_size, large_images, plan
from results_photos import photos, points
from results_presence import presence
from results_speed import after_the_backbone, bench, bench_of_model, costs, half_precision, tower
from results_steering import steering
from results_training import cache, feeding, large_cache
from results_unlike_scenes import unlike_scenes

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
MODELS = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")

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
        "mean IoU, best blind guess",
        "shape words right",
        "shape words right, best of the five, blank image",
        "shape words right, drawn evenly",
    )
    rows = [(name, *(report[name] for report in merged)) for name in names]
    reports = [f"{model}_{what}" for what in ("scenes", "refiner") for model in MODELS]
    scenes, refined = (read_report(f"{MODELS[0]}_{what}")["scenes"] for what in ("scenes", "refiner"))
    return f"""## Embedded models

Measured on {scenes:.0f} scenes on which nothing was trained, chosen or monitored; refined masks and boundaries on the
first {refined} of them.

{table(("", *(f"`{model}`" for model in MODELS)), rows)}

*Ceiling of the grid*: the true masks, pooled on the grid. *Images swapped*: every image replaced by that of another
scene; a decoder over random weights is [below](#over-several-seeds). *Refined*: by a refiner on MobileSAM, trained over
the same U-Net and measured at the images' full size. The vision towers were trained with labels from the masks; no loss
touched the attention of the language models (`vlm_adapters/embedded/tiny-qwen2_5_vl/README.md`).

`python examples/lab/train_tiny_backbone.py NAME`, `train_on_hard_scenes.py NAME` and
`train_tiny_decoder.py --model NAME` make a model and its decoder anew, `train_tiny_refiner.py --model NAME --hard
--scenes 200 --steps 1000 --out DIR` its refiner.

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


def _is_shown(finding: dict[str, Any]) -> bool:
    chain = finding["part"] == "chain" and finding["what"].endswith("attention, float32")
    return chain or finding["part"] in ("kernels", "memory")


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
