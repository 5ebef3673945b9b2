"""The page's server, asked as a stranger would: what it gives, what it refuses, and what it never reaches."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
import uvicorn
from PIL import Image

from vlm_adapters.errors import OutputError
from vlm_adapters.web.app import page_app
from vlm_adapters.web.limits import WebLimits
from vlm_adapters.web.server import LOCAL, bound_socket

if TYPE_CHECKING:
    from vlm_adapters.grounding.base import Grounder

JSON = {"Content-Type": "application/json"}
LIMITS = WebLimits(max_file_bytes=1024**2, max_pixels=50_000, max_text=100, max_phrases=3, per_minute=4)
TEXT = "a red square and a green square"


class Client:
    def __init__(self, port: int) -> None:
        self.port = port
        self.headers: Mapping[str, str] = {}

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = JSON) -> tuple[int, bytes]:
        """Send a request as it is: no `..` is taken out of the path."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body or None, dict(headers))
            answer = connection.getresponse()
            self.headers = dict(answer.getheaders())
            return answer.status, answer.read()

    def post(self, **request: object) -> tuple[int, dict[str, object]]:
        status, body = self.ask("POST", "/results", json.dumps(request).encode())
        return status, json.loads(body)


@pytest.fixture
def client(by_colour: Grounder) -> Iterator[Client]:
    with bound_socket("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(page_app(by_colour, "planted", LOCAL, LIMITS), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Client(listening.getsockname()[1])
        server.should_exit = True
        thread.join()


def encoded(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def error_of(found: tuple[int, dict[str, object]]) -> tuple[int, str]:
    status, body = found
    assert list(body) == ["error"]
    return status, str(body["error"])


def test_a_sentence_is_grounded_and_its_pictures_and_files_are_given(client: Client, square_image: Image.Image) -> None:
    status, found = client.post(image=encoded(square_image), text=TEXT, phrases=["a red square", "a green square"])
    assert (status, found["size"], found["layers"], found["heads"]) == (200, [110, 160], [0, 2], [0, 1])
    kept = f"/results/{found['id']}"
    for name in ("mask.png", "mask.png?phrase=1", "map.png?phrase=1&layer=2&head=1", "overlay.png"):
        status, body = client.ask("GET", f"{kept}/{name}")
        assert (status, Image.open(BytesIO(body)).size) == (200, (160, 110))
    words = json.loads(client.ask("GET", f"{kept}/words?x=120&y=60")[1])
    assert words[0]["phrase"] == 1
    grounding = json.loads(client.ask("GET", f"{kept}/grounding.json")[1])
    assert [phrase["box"] for phrase in grounding["phrases"]] == [[20, 10, 60, 50], [100, 40, 140, 90]]


def test_phrases_are_found_where_none_are_named(client: Client, square_image: Image.Image) -> None:
    _, found = client.post(image=encoded(square_image), text=TEXT)
    assert isinstance(found["phrases"], list)
    assert [phrase["text"] for phrase in found["phrases"]] == ["a red square", "a green square"]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "//etc/passwd",
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/page.css/../app.py",
        "/page/..%2fapp.py",
        "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/examples/..%2f..%2fpyproject.toml.png",
        "/examples/9.png",
        "/results/..%2f..%2fetc/grounding.json",
        "/results/%2fetc%2fpasswd/overlay.png",
    ],
)
def test_no_path_of_the_server_is_reachable(client: Client, path: str) -> None:
    status, body = client.ask("GET", path)
    assert status == 404
    assert b"root:" not in body


def test_an_image_is_never_a_path_or_an_address(client: Client) -> None:
    for image in ("/etc/passwd", "https://example.org/x.png", "file:///etc/passwd"):
        assert error_of(client.post(image=image, text=TEXT)) == (
            400,
            "The image is not in base64. Send the bytes of an image file in it.",
        )
    status, error = error_of(client.post(image=base64.b64encode(b"/etc/passwd").decode(), text=TEXT))
    assert status == 400
    assert "11 bytes" in error


def test_an_image_of_too_many_pixels_is_refused_in_a_line(client: Client) -> None:
    status, error = error_of(client.post(image=encoded(Image.new("RGB", (300, 200))), text=TEXT))
    assert status == 400
    assert "60000 pixels" in error.replace(",", "")


def test_a_body_that_is_too_long_is_refused(client: Client) -> None:
    status, error = error_of(client.post(image="A" * 1_500_000, text=TEXT))
    assert status == 413
    assert error == "The image file has more than the 1 MiB that are allowed. Shrink it."


def test_too_much_text_and_too_many_phrases_are_refused(client: Client, square_image: Image.Image) -> None:
    image = encoded(square_image)
    assert error_of(client.post(image=image, text="a" * 101)) == (
        400,
        "The text has 101 characters, and 100 are allowed. Shorten it.",
    )
    message = "There are 4 phrases, and 3 are allowed. Name fewer."
    assert error_of(client.post(image=image, text=TEXT, phrases=["a"] * 4)) == (400, message)
    assert error_of(client.post(image=image, text="a red cat, a green cat, a blue cat, a red dog")) == (400, message)


def test_mistakes_are_said_in_a_line(client: Client, square_image: Image.Image) -> None:
    image = encoded(square_image)
    assert "not in the text" in error_of(client.post(image=image, text=TEXT, phrases=["a cat"]))[1]
    assert "blank" in error_of(client.post(image=image, text=" "))[1]
    assert "does not answer" in error_of(client.post(image=image, text="What is red?", ask=True))[1]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"image": 1, "text": ""}', b'{"image":"","text":"","path":"x"}'])
def test_a_body_of_another_form_is_refused(client: Client, body: bytes) -> None:
    status, answer = client.ask("POST", "/results", body)
    assert status == 400
    assert json.loads(answer)["error"].startswith("The request cannot be read: ")


def test_a_form_of_another_site_is_refused(client: Client) -> None:
    status, _ = client.ask("POST", "/results", b"{}", {"Content-Type": "text/plain"})
    assert status == 415
    assert client.ask("GET", "/model", headers={"Host": "evil.example"})[0] == 400
    assert "Access-Control-Allow-Origin" not in client.headers


def test_an_address_has_so_many_groundings_a_minute(client: Client, square_image: Image.Image) -> None:
    image = encoded(square_image)
    statuses = [client.post(image=image, text=TEXT)[0] for _ in range(LIMITS.per_minute + 1)]
    assert statuses == [200] * LIMITS.per_minute + [429]


@pytest.mark.parametrize(
    "name",
    ["mask.png?phrase=9", "mask.png?masks=x", "map.png?layer=1", "map.png?phrase=-1", "words?x=1e9"],
)
def test_what_a_result_does_not_have_is_not_there(client: Client, square_image: Image.Image, name: str) -> None:
    _, found = client.post(image=encoded(square_image), text=TEXT)
    status, body = client.ask("GET", f"/results/{found['id']}/{name}")
    assert status == 404
    assert "error" in json.loads(body)


def test_browsers_are_told_to_load_nothing_from_elsewhere(client: Client) -> None:
    status, page = client.ask("GET", "/")
    assert status == 200
    assert b"http" not in page
    policy = client.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert not {"http:", "https:", "*", "'unsafe-inline'", "'unsafe-eval'"} & set(policy.replace(";", " ").split())


def test_a_port_that_is_taken_is_an_error_of_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=rf"127\.0\.0\.1:{port} cannot be listened on.*another --host or --port"):
            bound_socket("127.0.0.1", port)


def test_without_the_extra_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlm_adapters.cli import main  # noqa: PLC0415 - the command line alone

    monkeypatch.setitem(sys.modules, "vlm_adapters.web.server", None)
    monkeypatch.setattr(sys, "argv", ["adapters", "web"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "The page needs an extra: pip install 'vlm-adapters[web]'" in capsys.readouterr().err
