"""The pages about the domains say what the code does: written anew, they come out the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gentax.domains import domains

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("domain_pages", DOCS / "domain_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["sokoban", "crafting", "webshop", "babyai"])
def test_a_page_is_what_the_script_writes(pages, name):
    assert (DOCS / "domains" / f"{name}.md").read_text(encoding="utf-8") == pages.page(name)


def test_every_domain_has_a_page_and_a_transcript():
    overview = (DOCS / "domains" / "README.md").read_text(encoding="utf-8")
    for name in domains():
        text = (DOCS / "domains" / f"{name}.md").read_text(encoding="utf-8")
        assert "[success, " in text
        assert f"## {name}\n" in overview
