"""What is installed, what is missing, and what is older than the library needs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

from packaging.requirements import Requirement

from vlm_adapters.errors import PluginError

DISTRIBUTION = "vlm-adapters"
_NEEDED_BY_ALL = ""


@dataclass(frozen=True)
class PackageReport:
    """A package that the library requires.

    Attributes:
        name: Name of the distribution.
        floor: Versions that the library takes, such as `>=2.12`.
        installed: Installed version; None if it is not installed.
        extras: Extras that need it; empty if the library itself does.
        is_good: Whether the installed version is one of these; None if none is installed.
    """

    name: str
    floor: str
    installed: str | None
    extras: tuple[str, ...]
    is_good: bool | None


@dataclass(frozen=True)
class Diagnosis:
    """An installation of the library.

    Attributes:
        version: Version of the library.
        python: Version of Python.
        system: Operating system and machine.
        packages: Every package that the library or an extra requires.
        extras: What is missing for every extra; empty where it is complete.
        accelerators: Names of the accelerators that torch can use.
        problem: Reason why torch cannot be asked for accelerators.
    """

    version: str
    python: str
    system: str
    packages: tuple[PackageReport, ...]
    extras: Mapping[str, tuple[str, ...]]
    accelerators: tuple[str, ...]
    problem: str | None

    @property
    def faults(self) -> tuple[str, ...]:
        """What has to be installed or renewed, as `pip install` takes it."""
        return tuple(
            f"{package.name}{package.floor}"
            for package in self.packages
            if package.is_good is False or (package.is_good is None and not package.extras)
        )


def diagnose() -> Diagnosis:
    """Look at the installation.

    Raises:
        PluginError: The library itself is not installed, so nothing says what it requires.
    """
    try:
        declared = [Requirement(line) for line in requires(DISTRIBUTION) or ()]
        extras = metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except PackageNotFoundError as error:
        raise PluginError(f"{DISTRIBUTION} is not installed, only imported. Install it with pip.") from error
    needed: dict[tuple[str, str], tuple[str, ...]] = {}
    for extra in (_NEEDED_BY_ALL, *extras):
        for requirement in _of(extra, declared):
            key = (requirement.name, str(requirement.specifier))
            needed[key] = (*needed.get(key, ()), extra)
    packages = tuple(_report(name, floor, by) for (name, floor), by in needed.items())
    missing = {
        extra: tuple(package.name for package in packages if extra in package.extras and package.installed is None)
        for extra in extras
    }
    accelerators, problem = _accelerators()
    return Diagnosis(
        version=version(DISTRIBUTION),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=packages,
        extras=missing,
        accelerators=accelerators,
        problem=problem,
    )


def _of(extra: str, declared: list[Requirement]) -> Iterator[Requirement]:
    """The packages that one extra requires beyond the library, those of extras within it included."""
    for requirement in declared:
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": _NEEDED_BY_ALL})
        if always != (extra == _NEEDED_BY_ALL) or (marker is not None and not marker.evaluate({"extra": extra})):
            continue
        if requirement.name == DISTRIBUTION:
            for inner in sorted(requirement.extras):
                yield from _of(inner, declared)
        else:
            yield requirement


def _report(name: str, floor: str, needed_by: tuple[str, ...]) -> PackageReport:
    try:
        installed = version(name)
    except PackageNotFoundError:
        installed = None
    is_good = (
        None if installed is None else Requirement(f"{name}{floor}").specifier.contains(installed, prereleases=True)
    )
    extras = () if _NEEDED_BY_ALL in needed_by else needed_by
    return PackageReport(name, floor, installed, extras, is_good)


def _accelerators() -> tuple[tuple[str, ...], str | None]:
    """Names of the accelerators, or the reason why torch cannot be asked."""
    try:
        torch: Any = import_module("torch")
        if not torch.accelerator.is_available():
            return (), None
        kind = torch.accelerator.current_accelerator().type
        described = getattr(torch, kind)
        count = torch.accelerator.device_count()
        names = [
            described.get_device_name(index) if hasattr(described, "get_device_name") else kind
            for index in range(count)
        ]
        return tuple(f"{kind}:{index} {name}" for index, name in enumerate(names)), None
    except Exception as error:  # noqa: BLE001 - a broken torch is what a doctor is asked about
        return (), f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
