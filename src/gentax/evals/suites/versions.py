"""What a result was made with: versions of gentax, of Python and of the packages that matter, and the platform."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version

import gentax
from gentax.domains import domain

SAMPLING = ("numpy", "torch", "transformers", "tokenizers")  # what draws actions, whatever the domain


def versions(domains: Iterable[str]) -> dict[str, str]:
    """Return by name the versions here of what plays `domains`."""
    found = {"gentax": gentax.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in SAMPLING:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # a policy that is no local model needs none of them
    for name in domains:
        found |= packages(name)
    return found


def packages(name: str) -> dict[str, str]:
    """Return the packages that a domain needs, and their versions here."""
    names = sorted({one for module in domain(name).requires for one in _brought_by().get(module, ())})
    return {one: version(one) for one in names}


@cache
def _brought_by() -> Mapping[str, list[str]]:
    """Return by module the packages that bring it; every installed package is looked at, once."""
    return packages_distributions()
