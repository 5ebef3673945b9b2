"""`adapters chat`: a conversation about images, whose answers are grounded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_adapters.cli.arguments import (
    DEFAULT_MODEL,
    AttentionOption,
    DeviceOption,
    DtypeOption,
    GrounderOption,
    JsonOption,
    KeepAbsentOption,
    MethodOption,
    OutOption,
    ProfileOption,
    QuantizationOption,
    SamOption,
)
from vlm_adapters.cli.printing import console, line, marked, print_error, print_json, styled, working
from vlm_adapters.cli.tables import print_grounding
from vlm_adapters.errors import AdapterError, OptionError, PromptError

if TYPE_CHECKING:
    from PIL import Image

    from vlm_adapters.grounding.chat import GroundedChat, Turn
    from vlm_adapters.prompt import Prompt

_LONGEST_QUESTION = 100_000


def command(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Images on disk; - for one on stdin.", show_default=False)
    ],
    *,
    ask: Annotated[
        list[str] | None,
        typer.Option("--ask", "-a", help="A question. Repeat for more; without any they come from stdin."),
    ] = None,
    model: GrounderOption = DEFAULT_MODEL,
    method: MethodOption = "auto",
    profile: ProfileOption = None,
    sam: SamOption = None,
    keep_absent: KeepAbsentOption = False,
    max_new_tokens: Annotated[int, typer.Option(help="Where an answer is cut off.", min=1)] = 256,
    out: OutOption = Path("chat"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk about images; the phrases of every answer are grounded by the tokens that it was written with.

    Questions are those of --ask, else the lines of stdin: typed one after the other, or piped in. A terminal shows the
    answer while it is written, and then its phrases in the colours of their masks. With --json every turn is one line.

    Writes a folder for every turn to --out, with the files that `adapters ground` writes and gcg.json (the form of
    GLaMM), and chat.json, which names the turns. Those of an earlier conversation in --out are removed.
    """
    from vlm_adapters.cli.asked import STDIN, image_id, read_image
    from vlm_adapters.data.locks import locked_folder
    from vlm_adapters.grounding.chat import GroundedChat
    from vlm_adapters.grounding.load import load_grounder
    from vlm_adapters.output.conversation import ConversationFiles

    if STDIN in images and not ask:
        raise OptionError("The image comes from stdin, so that no question can. Give one: --ask QUESTION.")
    opened = [read_image(image) for image in images]  # mistakes show before the model
    if any(not question.strip() for question in ask or ()):
        raise PromptError("The question is blank. Give one: --ask QUESTION.")
    typed = not ask and sys.stdin.isatty()
    questions = typed_questions(prompt_on_stderr=as_json) if typed else _given(ask)
    with locked_folder(out):
        with working(f"Loading {model} ..."):
            grounder = load_grounder(
                model,
                method=method,
                profile=profile,
                sam=sam,
                device=device,
                dtype=dtype,
                attn_implementation=attn_implementation,
                quantization_config=quantization,
            )
        grounder.keeps_absent_masks = keep_absent
        chat = GroundedChat(grounder, max_new_tokens=max_new_tokens)
        files = ConversationFiles(out, list(map(image_id, images)))
        if not as_json:
            line(f"method: {grounder.description}")
        for question in questions:
            if not (typed or as_json):
                line(f"question: {question}")
            shown = () if chat.turns else opened
            try:
                turn = chat.ask(question, shown) if as_json else _shown_turn(chat, question, shown)
            except AdapterError as error:
                if not typed:
                    raise
                print_error(str(error))
                continue
            folders = files.add(turn)
            if as_json:
                _print_json(turn, folders)
            else:
                _print_found(turn, folders, images)


def typed_questions(*, prompt_on_stderr: bool = False) -> Iterator[str]:
    """Yield the questions that somebody types, each when the one before it is answered."""
    terminal = console(err=prompt_on_stderr)
    while True:
        try:
            question = terminal.input(styled("question (Ctrl-D ends): ", "bold"))
        except EOFError:
            line()
            return
        if question.strip():
            yield question.strip()


def _given(ask: Sequence[str] | None) -> Iterator[str]:
    """The questions of --ask, or the lines of stdin, of which the first is read at once.

    Raises:
        OptionError: There is none.
    """
    questions = iter(ask or _lines())
    first = next(questions, None)
    if first is None:
        raise OptionError("There is no question. Give one: --ask QUESTION, or a line of stdin.")
    return chain([first], questions)


def _lines() -> Iterator[str]:
    """Yield the lines of stdin that are not blank."""
    while question := sys.stdin.readline(_LONGEST_QUESTION):
        if question.strip():
            yield question.strip()


def _shown_turn(chat: GroundedChat, question: str, images: Sequence[Image.Image]) -> Turn:
    """Ask, and show the answer while it is written where there is a terminal, else when it is complete."""
    from rich.live import Live

    terminal = console()
    if not terminal.is_terminal:
        turn = chat.ask(question, images)
        line(f"answer: {turn.answer.text}")
        return turn
    with Live(styled("..."), console=terminal, auto_refresh=False, vertical_overflow="visible") as live:
        written: list[str] = []

        def show(piece: str) -> None:
            written.append(piece)
            live.update(marked("".join(written)), refresh=True)

        turn = chat.ask(question, images, stream=show)
        live.update(marked(turn.prompt.text, colours_of(turn.prompt)), refresh=True)
    return turn


def colours_of(prompt: Prompt) -> list[tuple[tuple[int, int], str]]:
    """Where the phrases of an answer are, and the colours of their masks as styles."""
    from vlm_adapters.output.render import colour_of

    colours = map(colour_of, range(len(prompt.phrases)))
    return [
        (phrase.span, f"bold rgb({red},{green},{blue})")
        for phrase, (red, green, blue) in zip(prompt.phrases, colours, strict=True)
    ]


def _print_found(turn: Turn, folders: Sequence[Path], images: Sequence[str]) -> None:
    if not folders:
        line("no phrase of the answer can be grounded", style="dim")
    for grounding, folder, image in zip(turn.groundings, folders, images, strict=False):
        if len(images) > 1:
            line(f"in {image}:")
        print_grounding(grounding, [folder])


def _print_json(turn: Turn, folders: Sequence[Path]) -> None:
    from vlm_adapters.output.exports import answer_to_dict, grounding_to_dict

    found = [
        {**grounding_to_dict(grounding), "folder": str(folder)}
        for grounding, folder in zip(turn.groundings, folders, strict=True)
    ]
    print_json({"question": turn.question, "answer": answer_to_dict(turn.answer, None), "groundings": found})
    sys.stdout.flush()
