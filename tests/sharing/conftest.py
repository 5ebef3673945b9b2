"""A stand-in for the hub: a server on this machine that speaks what huggingface_hub calls."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from typing_extensions import override

Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Repositories as commits: every branch is a name of one, every commit a set of files.

    Attributes:
        commits: The files of every commit, by repository and id.
        branches: The id of the commit that every branch of a repository is at.
        private: What was said of a repository's visibility when it was made.
        gated: Repositories whose files nobody may read.
        declared: Sizes that are declared in the place of the true ones, by the name of the file.
        messages: The messages of all commits.
        requests: Every request, as method and path.
        tokens: Every token that came with one.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.commits: dict[str, dict[str, Files]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.large: Files = {}
        self.private: dict[str, str | None] = {}
        self.gated: set[str] = set()
        self.declared: dict[str, int] = {}
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def make(self, repository: str) -> None:
        self.commits[repository] = {}
        self.branches[repository] = {}
        self.commit(repository, "main", {})

    def commit(self, repository: str, branch: str, files: Files) -> str:
        content = json.dumps([len(self.commits[repository]), *sorted(files)]).encode() + b"".join(files.values())
        name = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self.commits[repository][name] = files
        self.branches[repository][branch] = name
        return name

    def put(self, repository: str, files: Files) -> str:
        """Make a repository with these files, or add them to it."""
        if repository not in self.commits:
            self.make(repository)
        return self.commit(repository, "main", {**self.files(repository), **files})

    def files(self, repository: str, branch: str = "main") -> Files:
        return self.commits[repository][self.branches[repository][branch]]


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    @override
    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def answer(self, content: object = b"", status: int = 200, **headers: object) -> None:
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(sent))} | named).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)

    def do(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        self.server.tokens.add(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        for method, pattern, answer in ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                answer(self, *found.groups(), *([] if method in ("GET", "HEAD") else [body]))
                return
        self.answer({"error": f"unknown: {path}"}, 501)

    do_GET = do_HEAD = do_POST = do_PUT = do  # noqa: N815 - http.server's names

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        repository = f"{wanted['organization']}/{wanted['name']}"
        if repository in self.server.commits:
            return self.answer({"error": "exists", "url": f"{self.server.url}/{repository}"}, 409)
        self.server.make(repository)
        self.server.private[repository] = wanted.get("visibility")
        return self.answer({"url": f"{self.server.url}/{repository}"})

    def branch(self, repository: str, branch: str, _: bytes) -> None:
        branches = self.server.branches[repository]
        self.answer({}, 409 if branch in branches else 200)
        branches.setdefault(branch, branches["main"])

    def validate(self, body: bytes) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self.answer({"errors": [], "warnings": []})

    def preupload(self, _: str, __: str, body: bytes) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer({"files": modes})

    def batch(self, _: str, body: bytes) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.server.url}/large/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, digest: str, body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == digest
        self.server.large[digest] = body
        self.answer()

    def commit(self, repository: str, branch: str, body: bytes) -> None:
        files = dict(self.server.files(repository, branch))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        name = self.server.commit(repository, branch, files)
        self.answer({"commitUrl": f"{self.server.url}/{repository}/commit/{name}", "commitOid": name})

    def found(self, repository: str, revision: str) -> tuple[str, Files] | None:
        """The commit and its files; None where the answer has been given."""
        if repository not in self.server.commits:
            return self.answer({"error": "no repository"}, 404, X_Error_Code="RepoNotFound")
        if repository in self.server.gated:
            return self.answer({"error": "gated"}, 403, X_Error_Code="GatedRepo")
        name = self.server.branches[repository].get(revision, revision)
        if name not in self.server.commits[repository]:
            return self.answer({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
        return name, self.server.commits[repository][name]

    def tree(self, repository: str, revision: str) -> None:
        if found := self.found(repository, revision):
            self.answer([{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in found[1].items()])

    def info(self, repository: str, revision: str = "main") -> None:
        if found := self.found(repository, revision):
            siblings = [{"rfilename": name} for name in found[1]]
            self.answer({"id": repository, "sha": found[0], "siblings": siblings})

    def resolve(self, repository: str, revision: str, name: str) -> None:
        if not (found := self.found(repository, revision)):
            return None
        commit, files = found
        if name not in files:
            return self.answer({"error": "no file"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        digest, size = hashlib.sha256(files[name]).hexdigest(), self.server.declared.get(name, len(files[name]))
        return self.answer(files[name], ETag=f'"{digest}"', X_Repo_Commit=commit, X_Linked_Size=size)


REPOSITORY = r"/(?:api/models/)?([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", Answers.create),
    ("POST", "/api/validate-yaml", Answers.validate),
    ("POST", rf"{REPOSITORY}/branch/(.+)", Answers.branch),
    ("POST", rf"{REPOSITORY}/preupload/(.+)", Answers.preupload),
    ("POST", rf"{REPOSITORY}\.git/info/lfs/objects/batch", Answers.batch),
    ("PUT", "/large/(.+)", Answers.upload),
    ("POST", rf"{REPOSITORY}/commit/(.+)", Answers.commit),
    ("GET", rf"{REPOSITORY}/tree/(.+)", Answers.tree),
    ("GET", rf"{REPOSITORY}/revision/(.+)", Answers.info),
    ("GET", REPOSITORY, Answers.info),
    ("HEAD", rf"{REPOSITORY}/resolve/([^/]+)/(.+)", Answers.resolve),
    ("GET", rf"{REPOSITORY}/resolve/([^/]+)/(.+)", Answers.resolve),
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub without repositories, which huggingface_hub takes for the real one; its cache is empty."""
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    constants = huggingface_hub.constants
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no_token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
