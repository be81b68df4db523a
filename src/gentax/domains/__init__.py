"""The domains, a folder each, and the registry that finds them by name."""

from gentax.domains.registry import domain, domains, make, missing_modules, register_with_gymnasium

__all__ = ["domain", "domains", "make", "missing_modules"]

register_with_gymnasium()
