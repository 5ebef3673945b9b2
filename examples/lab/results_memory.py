"""Sections of docs/results.md about memory."""

from __future__ import annotations

from report import read_report, sources, table

MEBIBYTE = 2**20


def large_images() -> str:
    """Time and memory of large images, many phrases and long texts."""
    report = read_report("large_images")
    names = ("seconds", "MiB at most", "MiB when loaded", "MiB of masks")
    rows = [(trial["trial"], *(f"{trial[name]:,}" for name in names)) for trial in report["trials"]]
    return f"""## Large images and many phrases

The most memory that a process ever held, beside what it held when `{report["model"]}` was loaded, and beside the masks
that it returned. Before maps were kept as grids and figures painted small, the first two rows took 5,697 and 4,032 MiB,
and the two commands 3,521 and 4,178 MiB, `attend` without an end within two minutes.

{table(("trial", *names), rows)}

{sources("large_images")}"""


def full_size() -> str:
    """Memory of a full-size model, counted without weights."""
    report = read_report("info_llava_next")
    forward = report["forward"]
    grids = " and ".join(f"{rows}x{columns}" for rows, columns in forward["grids"])
    memory = {name: f"{count / MEBIBYTE:,.0f} MiB" for name, count in forward["memory"].items()}
    rows = [
        ("weights", f"{forward['weight_bytes'] / MEBIBYTE:,.0f} MiB"),
        ("one pass of the language model", memory["plain"]),
        (f"the same with the rows of {forward['trial']['rows']} tokens", memory["rows"]),
        ("the same with `output_attentions=True`", memory["eager"]),
    ]
    return f"""## Memory at full size

LLaVA-Next 7B and an image of 480 x 640 pixels: {report["channels"]:,} channels, grids of {grids},
{forward["image_tokens"]:,} image tokens. Counted, not measured.

{table(("", "memory"), rows)}

{sources("info_llava_next")}"""


def plan() -> str:
    """What `adapters info --device-memory` predicts, against what models of full size take."""
    names = ("plan", "plan_gpu_qwen3_vl", "plan_gpu_qwen2_5_vl")
    found = [(report["device"].upper(), row) for report in map(read_report, names) for row in report["rows"]]
    rows = [
        (
            row["model"].split("/")[1] + (f" + SAM {row['sam']}" if row["sam"] else ""),
            device,
            *(row[name] for name in ("dtype", "image", "phrases", "tokens")),
            *(f"{row[name]:.2f}" for name in ("predicted", "measured")),
            f"{row['predicted / measured']:.3f}",
            *(f"{row[name]:.3f}" for name in ("predicted beyond", "measured beyond")),
            f"{row['predicted / measured beyond']:.2f}",
        )
        for device, row in found
    ]
    totals, beyond = (
        [row[name] for _, row in found] for name in ("predicted / measured", "predicted / measured beyond")
    )
    head = ("model", "on", "precision", "image", "phrases", "tokens", "predicted", "measured", "predicted / measured")
    return f"""## The plan against measured memory

Models of full size with random weights, with a decoder of the usual size; GiB. The
prediction is that of `adapters info --image --phrases` without its estimates for a driver and an allocator. Of all, it
is {min(totals):.3f} to {max(totals):.3f} of what was measured; of what is taken beyond the weights,
{min(beyond):.2f} to {max(beyond):.2f}.

{table((*head, "beyond the weights, predicted", "measured", "predicted / measured"), rows)}

{sources(*names)}"""
