"""Write docs/llms.txt, the list of pages for language models, from docs/mkdocs.yml: `make pages` runs this."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[2] / "docs"
FILE = DOCS / "llms.txt"


def text() -> str:
    """The whole file."""
    site = yaml.safe_load((DOCS / "mkdocs.yml").read_text(encoding="utf-8"))
    return f"# {site['site_name']}\n\n> {site['site_description']}\n" + "".join(_lines(site["nav"]))


def _lines(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield _line(entry, re.findall(r"^# (.*)$", (DOCS / entry).read_text(encoding="utf-8"), re.MULTILINE)[0])
            continue
        ((title, content),) = entry.items()
        if isinstance(content, str):
            yield _line(content, title)
        else:
            yield f"\n## {title}\n\n"
            yield from _lines(content)


def _line(page: str, title: str) -> str:
    address = page.removesuffix(".md").removesuffix("index")
    return f"- [{title}]({address.rstrip('/')}/): {_summary(DOCS / page)}\n" if address else f"\n- [{title}](./)\n"


def _summary(page: Path) -> str:
    """The first sentence of a page that is prose; of a page that is made from docstrings, what it is made from."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for paragraph in prose.split("\n\n"):
        if re.match(r"[A-Z`*\[]", paragraph.strip()):
            plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
            return re.split(r"(?<=[.?])\s", plain)[0]
    return f"API of `vlm_adapters.{page.stem}`"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
