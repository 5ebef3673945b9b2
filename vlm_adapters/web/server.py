"""Running the page's server until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import uvicorn

from vlm_adapters.errors import OutputError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.web.app import page_app

LOCAL = ("127.0.0.1", "localhost")
"""Names of this machine, under which nobody else reaches it."""


def bound_socket(host: str, port: int) -> socket.socket:
    """Take a port.

    Args:
        host: An address of this machine, or a name of one.
        port: The port; 0 takes one that is free.

    Raises:
        OutputError: It cannot be taken.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise OutputError(f"{host}:{port} cannot be listened on: {error}. Give another --host or --port.") from error


def serve(grounder: Grounder, name: str, listening: socket.socket, ready: Callable[[str], object]) -> None:
    """Serve the page until the process is stopped.

    Args:
        grounder: What `load_grounder` gives.
        name: The model's name, as it is shown.
        listening: From `bound_socket`.
        ready: Gets the page's address as soon as it answers.
    """
    host, port = listening.getsockname()[:2]
    hosts: Sequence[str] = LOCAL if host in LOCAL else ("*",)
    config = uvicorn.Config(
        page_app(grounder, name, hosts),
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # whoever sends them would choose the address that is counted
        server_header=False,
    )
    ready(f"http://{host}:{port}")
    uvicorn.Server(config).run(sockets=[listening])
