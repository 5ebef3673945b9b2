"""`adapters web`: the page in the browser."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm_adapters.cli.arguments import (
    DEFAULT_MODEL,
    AttentionOption,
    DeviceOption,
    DtypeOption,
    MethodOption,
    ProfileOption,
    QuantizationOption,
    SamOption,
)
from vlm_adapters.cli.printing import line, working
from vlm_adapters.errors import OptionError


def command(
    model: Annotated[str, typer.Argument(help="Embedded model, decoder's folder, checkpoint folder or hub id.")] = (
        DEFAULT_MODEL
    ),
    *,
    method: MethodOption = "auto",
    profile: ProfileOption = None,
    sam: SamOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 7860,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
) -> None:
    """Open a page in which sentences are grounded: click a word, or a pixel, and see what looks where.

    Only this machine reaches the page, unless --host says otherwise; then anybody who reaches the address can use the
    model, within limits of size and rate. The page loads nothing from elsewhere. Images and results are in memory
    alone. Ctrl-C ends it.
    """
    try:
        from vlm_adapters.web.server import bound_socket, serve
    except ImportError as error:
        raise OptionError(f"The page needs an extra: pip install 'vlm-adapters[web]' ({error}).") from error
    from vlm_adapters.grounding.load import load_grounder

    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attn_implementation}
    with bound_socket(host, port) as listening:  # mistakes show before the model
        with working(f"Loading {model} ..."):
            grounder = load_grounder(
                model,
                method=method,
                profile=profile,
                sam=sam,
                device=device,
                quantization_config=quantization,
                **options,
            )
        line(f"method: {grounder.description}")
        serve(grounder, model, listening, lambda address: line(f"{address}  (Ctrl-C ends)"))
