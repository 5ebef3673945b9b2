"""`adapters bench`: what the library costs against a plain pass of the same model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from vlm_adapters.cli.arguments import JsonOption, image_size
from vlm_adapters.cli.completion import model_names
from vlm_adapters.cli.printing import line, print_json, working
from vlm_adapters.cli.tables import print_rows, shown

if TYPE_CHECKING:
    from vlm_adapters.inspection.bench.measure import Measurement, Section

REPORT = "bench.json"
"""File name of the report in the folder of `--out`."""


def command(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Embedded model, checkpoint folder, or published checkpoint, with random weights.",
            autocompletion=model_names,
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 (bf16) or float16 (fp16); auto is float32 on a CPU.")
    ] = "auto",
    parts: Annotated[
        str | None,
        typer.Option(help="rows,tower,layers,sentences,cache,ground,bound: some of them, measured in the order given."),
    ] = None,
    image_tokens: Annotated[
        str | None, typer.Option(help="Tokens of an image, such as 1000,4000,8000; all parts take the first number.")
    ] = None,
    sentences: Annotated[int, typer.Option(help="Number of sentences on one image.", min=2)] = 16,
    phrases: Annotated[int, typer.Option(help="Number of phrases to ground.", min=1)] = 4,
    image: Annotated[
        str | None,
        typer.Option(help="WIDTHxHEIGHT in pixels of the image to ground.", show_default="as --image-tokens"),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Number of timed passes of each variant.", min=1)] = 7,
    seconds: Annotated[float, typer.Option(help="No variant gets a fourth turn after this time.", min=0)] = 40,
    eager: Annotated[bool, typer.Option(help="Also measure output_attentions; long sequences need gigabytes.")] = True,
    layers: Annotated[int, typer.Option(help="Without --model: layers of the language model.", min=1)] = 4,
    heads: Annotated[int, typer.Option(help="Without --model: number of query heads.", min=1)] = 28,
    length: Annotated[int, typer.Option(help="Without --model: number of tokens.", min=64)] = 2048,
    rows: Annotated[int, typer.Option(help="Without --model: number of attention rows.", min=1)] = 16,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for bench.json and plots.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what the library costs against a plain pass of the same model.

    All variants run in turn in one process. Time is the median of the ratios to the first variant in the same turn,
    with its interval; memory is the peak beyond the loaded model. Without --model a language model alone is
    measured, with random weights. Nothing is downloaded. Ctrl-C keeps what was measured; bench.json is written anew
    after every comparison.
    """
    from vlm_adapters.data.files import write_json
    from vlm_adapters.inspection.bench.plots import check_matplotlib, write_plots
    from vlm_adapters.inspection.bench.run import as_dict, run_bench
    from vlm_adapters.inspection.bench.settings import PARTS, BenchSettings, LanguageModelSizes

    if out is not None:
        check_matplotlib()
    device, dtype = _resolved(device, dtype)
    settings = BenchSettings(
        model=model,
        device=device,
        dtype=dtype,
        parts=tuple(parts.split(",")) if parts else PARTS,
        image_tokens=_numbers(image_tokens or ("1000,2000" if device == "cpu" else "1000,4000,8000")),
        sentences=sentences,
        phrases=phrases,
        image=image_size(image) if image else None,
        repeats=repeats,
        seconds=seconds,
        eager=eager,
        sizes=LanguageModelSizes(layers=layers, heads=heads, length=length, rows=min(rows, length)),
    )
    found: list[Section] = []
    content: dict[str, Any] = {}
    try:
        with working("Measuring ..."):
            for section in run_bench(settings):
                found.append(section)
                content = as_dict(settings, found, shlex.join(["adapters", *sys.argv[1:]]))
                if not as_json:
                    _print_section(section)
                if out is not None:  # now, for a process that is killed keeps nothing else
                    write_json(out / REPORT, content)
    finally:  # Ctrl-C keeps what was measured
        if found:
            if as_json:
                print_json(content)
            else:
                line()
                names = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
                line(f"{content['machine']}, {dtype}, {content['threads']} threads, {names}", style="dim")
            if out is not None:
                for file in (out / REPORT, *write_plots(found, out)):
                    line(str(file), style="dim", err=True)


def _resolved(device: str, dtype: str) -> tuple[str, str]:
    """Device and dtype as torch names them."""
    import torch

    from vlm_adapters.errors import OptionError
    from vlm_adapters.registry.load_options import dtype_name

    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        kind = torch.device(chosen).type
    except RuntimeError as error:
        raise OptionError(f"There is no device {device!r}: {str(error).splitlines()[0]} Give cpu or cuda.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"torch finds no GPU for --device {device}. Give --device cpu, or install a torch with CUDA.")
    name = ("float32" if kind == "cpu" else "bfloat16") if dtype == "auto" else dtype_name(dtype)
    if name not in ("float32", "bfloat16", "float16", "float64"):
        raise OptionError(f"There is no dtype {dtype!r}. Give float32, bfloat16 or float16.")
    return chosen, name


def _numbers(text: str) -> tuple[int, ...]:
    from vlm_adapters.errors import OptionError

    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise OptionError(f"--image-tokens {text} is not a list of numbers. Give one or more, such as 1000,4000.")
    return tuple(map(int, numbers))


def _print_section(section: Section) -> None:
    headings = ("variant", "ms", "ratio", "interval", "peak memory")
    print_rows(section.title, headings, [_cells(row) for row in section.rows], headings[1:])
    if section.facts:
        line("; ".join(f"{name}: {_number(value)}" for name, value in section.facts.items()), style="dim")


def _cells(row: Measurement) -> tuple[object, ...]:
    if row.seconds is None:
        return row.variant, row.note, None, None, None
    interval = f"{row.interval[0]:.3f}-{row.interval[1]:.3f} ({row.confidence:.0%})" if row.interval else None
    ratio = None if row.ratio is None else f"{row.ratio:.3f}"
    memory = None if row.peak_bytes is None else decimal(row.peak_bytes)
    return row.variant, f"{row.seconds * 1e3:,.1f}", ratio, interval, memory


def _number(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value)
