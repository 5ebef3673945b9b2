"""`adapters push`: a decoder on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm_adapters.cli.printing import line, working


def command(
    folder: Annotated[Path, typer.Argument(help="The decoder's folder, such as RUN/best.", show_default=False)],
    repository: Annotated[str, typer.Argument(help="Hub id, owner/name.", show_default=False)],
    *,
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder that `adapters evaluate` wrote for this decoder.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Identifier of a licence, such as apache-2.0.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, made if it is not there.")] = None,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Upload a mask decoder",
) -> None:
    """Upload a decoder to the hub, with a model card.

    Its config, its weights and a README.md go there in one commit, nothing else of
    FOLDER. The backbone is named, not uploaded. With --evaluation the card has the
    measured numbers; an evaluation of another decoder is refused. The token is that
    of `hf auth login` or of the variable HF_TOKEN.
    """
    from vlm_adapters.decoder.push import push_decoder

    with working(f"Uploading to {repository} ..."):
        address = push_decoder(
            folder,
            repository,
            evaluation=evaluation,
            license=licence,
            private=private or None,
            revision=revision,
            commit_message=message,
        )
    line(address)
