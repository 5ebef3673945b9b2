"""Running a checkpoint's chat template, a program that a stranger wrote, within bounds.

transformers runs templates in jinja's sandbox, which lets them reach nothing outside and bounds neither time nor
memory. Here a template is refused if its arithmetic could make something huge in one step, and stopped if it runs too
long. What escapes is a single step that makes something huge by means that are not listed here.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError

from vlm_adapters.errors import PromptError
from vlm_adapters.limits import Limits, shown
from vlm_adapters.message import Part
from vlm_adapters.video import Video

Turn = tuple[str, tuple[Part, ...]]
"""Role and content of a message."""
_GLANCE_SECONDS, _MOST_GROWTH = 0.05, 1 << 28
_STATM = Path("/proc/self/statm")
_MOST_CHARACTERS, _MOST_DIGITS, _MOST_PRODUCTS = 1_000_000, 6, 1
_WIDE_FORMAT = re.compile(r"[%:][^a-zA-Z]*\d{7}")


class TooLongError(Exception):
    """A template ran longer than it may."""


def apply_template(processor: Any, messages: Sequence[Turn], limits: Limits, around: tuple[str, str] = ("", "")) -> str:
    """Render messages with the processor's chat template.

    Args:
        processor: A transformers processor.
        messages: Role and content of every message.
        limits: How long the template may take.
        around: What to put before and after every text.

    Raises:
        PromptError: The template refuses the messages, could take all memory, or takes too long.
    """
    name = type(processor).__name__
    if problem := problem_of(_template_of(processor)):
        raise PromptError(
            f"The chat template of {name} {problem}, which could take all memory, so it is not run. "
            "Use the chat template that belongs to the checkpoint."
        )
    conversation = [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part.join(around)}
                if isinstance(part, str)
                else {"type": "video" if isinstance(part, Video) else "image"}
                for part in content
            ],
        }
        for role, content in messages
    ]
    try:
        with stopped_after(limits.max_template_seconds):
            rendered: str = processor.apply_chat_template(
                conversation, add_generation_prompt=messages[-1][0] == "user", tokenize=False
            )
    except TooLongError as error:
        raise PromptError(
            f"The chat template of {name} was stopped: it ran for more than {limits.max_template_seconds:g} s, or made "
            "too long a text. Use the template that belongs to the checkpoint, or load with "
            "limits=Limits(max_template_seconds=...)."
        ) from error
    except Exception as error:  # templates raise whatever they like
        raise PromptError(
            f"The chat template of {name} does not take these messages "
            f"({', '.join(role for role, _ in messages)}): {' '.join(str(error)[:300].split())}"
        ) from error
    return rendered


@lru_cache(maxsize=64)
def problem_of(template: str) -> str | None:
    """What a template contains that could make something huge in one step, for a message; None if nothing.

    No template of a published model that is known here computes powers, or multiplies more than once.
    """
    if len(template) > _MOST_CHARACTERS:
        return f"has {len(template):,} characters"
    try:
        tokens = [(kind, text) for _, kind, text in Environment(autoescape=True).lex(template)]
    except (TemplateError, RecursionError):
        return None  # transformers says what is wrong with it
    if tokens.count(("operator", "*")) > _MOST_PRODUCTS:
        return "multiplies more than once"
    if ("operator", "**") in tokens:
        return "computes a power"
    return next((f"contains {shown(text)}" for kind, text in tokens if _is_huge(kind, text)), None)


def _is_huge(kind: str, text: str) -> bool:
    """Whether a token of a template is a large number, or a format with a large width."""
    if kind in ("integer", "float"):
        digits = text.replace("_", "").lower()
        return len(digits) > _MOST_DIGITS or "e" in digits or digits.startswith(("0x", "0o", "0b"))
    return kind == "string" and _WIDE_FORMAT.search(text) is not None


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Stop Python code of this thread with a `TooLongError` once it has run too long or made too much.

    A single step in C, such as one huge multiplication, is not interrupted: `problem_of` refuses those. Memory is that
    of the process and looked at where Linux shows it, after a time in which no honest template still runs.
    """
    thread, ended, lock = ctypes.c_ulong(threading.get_ident()), threading.Event(), threading.Lock()
    sent, arrived = threading.Event(), False
    end, most = time.monotonic() + seconds, _resident() + _MOST_GROWTH

    def watch() -> None:
        while not ended.wait(_GLANCE_SECONDS):
            if time.monotonic() > end or _resident() > most:
                with lock:
                    if not ended.is_set():
                        sent.set()
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TooLongError))
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except TooLongError:
        arrived = True
        raise
    finally:
        with lock:
            ended.set()
        if sent.is_set() and not arrived:
            # It arrives here: if it were taken back, Python 3.11 would look for it for good, and profilers hang.
            with suppress(TooLongError):
                for _ in range(1000):
                    pass


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not show them."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _template_of(processor: Any) -> str:
    """The processor's chat template as text; of several, all of them."""
    template = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None) or ""
    return "\n".join(map(str, template.values())) if isinstance(template, dict) else str(template)
