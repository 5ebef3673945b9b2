"""Arguments that several commands share, each defined once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlm_adapters.cli.completion import model_names, recipe_names
from vlm_adapters.errors import OptionError, OutputError, PhraseError, RecipeError
from vlm_adapters.limits import shown

if TYPE_CHECKING:
    from vlm_adapters.training.recipe import Recipe

ImageOrMany = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE",
        help="An image on disk, - for one on stdin, or many: a folder, a JSONL file, a data set.",
        show_default=False,
    ),
]
Text = Annotated[
    str | None,
    typer.Argument(
        metavar="TEXT",
        help="The sentence to ground; with --ask, the answer of a model elsewhere.",
        show_default=False,
    ),
]
AskOption = Annotated[
    str | None,
    typer.Option("--ask", "-a", help="A question about the image: the model's answer is grounded by its tokens."),
]
AnswerOption = Annotated[
    Path | None, typer.Option("--answer", help="JSON file of the answer to --ask: its text, and the ids of its tokens.")
]
PhraseOption = Annotated[
    list[str] | None, typer.Option("--phrase", "-p", help="Words that occur once in the text. Repeat for more.")
]
SpanOption = Annotated[
    list[str] | None, typer.Option("--span", help="START:END characters of the text, for words that occur twice.")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Embedded model, checkpoint folder or hub id.",
        show_default=False,
        autocompletion=model_names,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", help="Embedded model, checkpoint folder or hub id.", autocompletion=model_names),
]
GrounderOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Embedded model, decoder's folder, checkpoint folder or hub id.",
        autocompletion=model_names,
    ),
]
MethodOption = Annotated[
    Literal["auto", "decoder", "box", "heads"], typer.Option("--method", help="How masks are made.")
]
ProfileOption = Annotated[Path | None, typer.Option("--profile", help="Head profile, from `adapters calibrate`.")]
SamOption = Annotated[Path | None, typer.Option("--sam", help="Checkpoint of Segment Anything that refines the masks.")]
KeepAbsentOption = Annotated[
    bool, typer.Option("--keep-absent", help="Keep the masks of phrases that count as absent.")
]
LookAgainOption = Annotated[
    int, typer.Option("--look-again", help="Ground each phrase again in a crop around its mask, so many times.", min=0)
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")]
DeviceOption = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1, mps, ...")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 (bf16) or float16 (fp16).")]
AttentionOption = Annotated[
    str | None,
    typer.Option("--attn-implementation", help="Kernel of the attention: sdpa, eager, flash_attention_2, ..."),
]
QuantizationOption = Annotated[
    Literal["nf4", "int8"] | None, typer.Option("--quantization", help="Quantise the weights, by bitsandbytes.")
]

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe's name or YAML file.", show_default=False, autocompletion=recipe_names
    ),
]
Changes = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to it.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs; `adapters schema` describes it.")]

DEFAULT_MODEL = "tiny-qwen2_5_vl"


def phrases_of(text: str, words: Sequence[str] | None, spans: Sequence[str] | None) -> list[str | tuple[int, int]]:
    """The phrases that a user named; the whole text if the user named none.

    Raises:
        PhraseError: A span is not of the form START:END.
    """
    if not words and not spans:
        return [(0, len(text))]
    return [*(words or []), *(_span(span) for span in spans or [])]


@contextmanager
def output_file(path: Path) -> Iterator[None]:
    """Hold the name of a file that a command writes at its end, so that a path that cannot be written shows first.

    Raises:
        OutputError: The path is a folder's, cannot be written to, or another process is about to write it.
    """
    from vlm_adapters.data.locks import locked_name  # noqa: PLC0415 - only where something is written

    if path.is_dir():
        raise OutputError(f"{path} is a folder. Give the path of a file.")
    with locked_name(path):
        yield


def read_recipe(name: str, changes: Sequence[str] | None) -> Recipe:
    """Read a recipe that is to be followed.

    Raises:
        RecipeError: The recipe cannot be used, or what training needs is not installed.
    """
    from vlm_adapters.training.recipe import Recipe  # noqa: PLC0415 - torch

    recipe = Recipe.read(name, changes or [])
    try:
        import_module("vlm_adapters.training.loop")  # needs all of the extra
    except ImportError as error:
        raise RecipeError(f"Training needs an extra: pip install 'vlm-adapters[train]' ({error}).") from error
    return recipe


def image_size(text: str) -> tuple[int, int]:
    """`(H, W)` of an image, written WIDTHxHEIGHT.

    Raises:
        OptionError: The text has another form.
    """
    width, cross, height = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise OptionError(
            f"The image {text!r} is not of the form WIDTHxHEIGHT. Give two whole numbers of pixels, such as 640x480."
        )
    return int(height), int(width)


def byte_count(text: str) -> int:
    """Bytes of a size of memory, such as 24GiB, 24GB or 24G.

    Raises:
        OptionError: The text has another form.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(iB|B)?\s*", text, re.IGNORECASE | re.ASCII)
    count = 0
    if found:
        number, unit, kind = found.groups()
        base = 1000 if (kind or "").lower() == "b" else 1024
        count = int(float(number) * base ** ("KMGT".index(unit.upper()) + 1))
    if not count:
        raise OptionError(
            f"The memory {shown(text)} is not a size. Give a number and a unit: 24GiB or 24G are 24 x 2^30 bytes, 24GB "
            "are 24 x 10^9. Cards are sold by the former."
        )
    return count


def _span(span: str) -> tuple[int, int]:
    start, colon, end = span.partition(":")
    if not (colon and start.isdigit() and end.isdigit()):
        raise PhraseError(f"The span {span!r} is not of the form START:END. Give two numbers, such as 0:12.")
    return int(start), int(end)
