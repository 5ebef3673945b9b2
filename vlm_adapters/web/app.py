"""The page's server: a few addresses, each of which is in `routes`, and none of which is a path of the machine.

The page runs no code and loads nothing from elsewhere (see `_HEADERS`); what it needs is in the folder `page`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vlm_adapters.backbone.protocol import SupportsGeneration
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import AdapterError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.output.exports import coco_results, grounding_to_dict
from vlm_adapters.output.render import grounding_overlay
from vlm_adapters.prompt import DESCRIBE_QUESTION
from vlm_adapters.web.limits import ModelQueue, RateLimit, RefusedError, WebLimits
from vlm_adapters.web.request import PageRequest
from vlm_adapters.web.result import PageResult, Results

EXAMPLES = 4
"""Number of scenes to begin with."""

_PAGE = Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """Answers the requests of the page.

    Args:
        grounder: The model, and what finds the masks.
        name: The model's name, as it is shown.
        limits: What a visitor may ask for.
    """

    def __init__(self, grounder: Grounder, name: str, limits: WebLimits) -> None:
        self.grounder = grounder
        self.name = name
        self.limits = limits
        self.examples: Sequence[Sample] = list(Scenes(EXAMPLES, seed=HELD_OUT_SEED))
        self.results = Results(limits)
        self._rate = RateLimit(limits.per_minute)
        self._queue = ModelQueue(limits.most_waiting)

    def routes(self) -> list[Route]:
        """All addresses of the server."""
        kept = "/results/{name}"
        return [
            Route("/", _file("index.html", "text/html")),
            Route("/page.css", _file("page.css", "text/css")),
            Route("/page.js", _file("page.js", "text/javascript")),
            Route("/model", self._model),
            Route("/examples/{index:int}.png", self._example),
            Route("/results", self._ground, methods=["POST"]),
            Route(f"{kept}/mask.png", self._mask),
            Route(f"{kept}/map.png", self._map),
            Route(f"{kept}/words", self._words),
            Route(f"{kept}/overlay.png", self._overlay),
            Route(f"{kept}/grounding.json", self._grounding),
            Route(f"{kept}/coco.json", self._coco),
        ]

    def _model(self, _: Request) -> Response:
        return JSONResponse(
            {
                "name": self.name,
                "method": self.grounder.description,
                "answers": isinstance(self.grounder.adapter, SupportsGeneration),
                "question": DESCRIBE_QUESTION,
                "examples": [
                    {
                        "text": sample.text,
                        "phrases": [phrase.text for phrase in sorted(sample.phrases, key=lambda phrase: phrase.start)],
                    }
                    for sample in self.examples
                ],
                "max_file_bytes": self.limits.max_file_bytes,
            }
        )

    def _example(self, request: Request) -> Response:
        index = int(request.path_params["index"])
        if index >= len(self.examples):
            raise RefusedError("There is no such example.", 404)
        return _png(self.examples[index].image)

    async def _ground(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":  # no form of another site
            raise RefusedError("The request is not JSON. Send it as application/json.", 415)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.limits.max_body_bytes:
                most = self.limits.max_file_bytes // 1024**2
                raise RefusedError(f"The image file has more than the {most} MiB that are allowed. Shrink it.", 413)
        asked = PageRequest.read(bytes(body), self.limits)
        self._rate.check(request.client.host if request.client else "")

        def ground() -> PageResult:
            prompt, grounding = asked.ground(self.grounder, self.limits)
            return PageResult.of(self.grounder, prompt, grounding)

        result = await self._queue.run(ground)
        return JSONResponse({"id": self.results.keep(result), **result.description()})

    def _mask(self, request: Request) -> Response:
        result, phrase = self._result(request), _number(request, "phrase")
        name = request.query_params.get("masks", next(reversed(result.masks)))
        return _drawn(lambda: result.mask_image(phrase, name))

    def _map(self, request: Request) -> Response:
        result = self._result(request)
        phrase, layer, head = (_number(request, name) for name in ("phrase", "layer", "head"))
        return _drawn(lambda: result.map_image(phrase or 0, layer, head))

    def _words(self, request: Request) -> Response:
        x, y = _number(request, "x") or 0, _number(request, "y") or 0
        return JSONResponse(self._result(request).words_at(x + 0.5, y + 0.5))

    def _overlay(self, request: Request) -> Response:
        return _png(grounding_overlay(self._result(request).grounding))

    def _grounding(self, request: Request) -> Response:
        return JSONResponse(grounding_to_dict(self._result(request).grounding))

    def _coco(self, request: Request) -> Response:
        return JSONResponse(coco_results(self._result(request).grounding, "image"))

    def _result(self, request: Request) -> PageResult:
        return self.results.get(request.path_params["name"])


def page_app(grounder: Grounder, name: str, hosts: Sequence[str], limits: WebLimits | None = None) -> Starlette:
    """Build the page's server.

    Args:
        grounder: What `load_grounder` gives.
        name: The model's name, as it is shown.
        hosts: Names under which browsers may ask for it, `"*"` for all: a site that gives its own name this machine's
            address is refused.
        limits: What a visitor may ask for.
    """
    return Starlette(
        routes=Page(grounder, name, limits or WebLimits()).routes(),
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={AdapterError: _refused},
    )


async def _with_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await answer(request)
    response.headers.update(_HEADERS)
    return response


def _refused(_: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 400
    return JSONResponse({"error": " ".join(str(error).split())}, status)


def _drawn(draw: Callable[[], Image.Image]) -> Response:
    """Draw what the query of a request names.

    Raises:
        RefusedError: The result has no such phrase, layer, head or masks.
    """
    try:
        image = draw()
    except (LookupError, ValueError) as error:
        raise RefusedError("There is no such phrase, layer, head or mask.", 404) from error
    return _png(image)


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = (_PAGE / name).read_bytes()
    return lambda _: Response(content, media_type=kind)


def _png(image: Image.Image) -> Response:
    file = BytesIO()
    image.save(file, "PNG", compress_level=3)
    return Response(file.getvalue(), media_type="image/png")


def _number(request: Request, name: str) -> int | None:
    """A number of the query; None if it is not there.

    Raises:
        RefusedError: It is not a whole number of a few digits.
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 7):
        raise RefusedError(f"{name} is not a whole number.", 404)
    return int(text)
