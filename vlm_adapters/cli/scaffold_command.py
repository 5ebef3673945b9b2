"""`adapters scaffold`: a plugin project to fill in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm_adapters.cli.printing import line


def command(
    model_type: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_TYPE", help="The model_type in the config.json of the checkpoints.", show_default=False
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the project; new or empty.", show_default=False)],
) -> None:
    """Write a plugin for a family of transformers, to be filled in.

    The project has the adapter, a tiny random model of the real classes, and the
    conformance suite as its test. Its README lists what is left to write.
    """
    from vlm_adapters.scaffold.project import write_project

    files = write_project(model_type, out)
    for file in files:
        line(str(file))
    readme = out / "README.md"
    line(f"Next: fill in the parts that {readme} names, pip install --editable {out}, adapters check {model_type}")
