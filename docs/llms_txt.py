"""A hook of MkDocs that writes the site for language models: llms.txt, llms-full.txt and every page as Markdown.

llms.txt (https://llmstxt.org) lists the pages in the order of the navigation, each with its first sentence. Pages keep
their names, so that links between them lead to Markdown again. What is written from docstrings is only in the HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

_sections: dict[str, list[Page]] = {}


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Keep the pages of each section of the navigation; those outside any come first."""
    _sections.clear()
    for item in nav.items:
        title = item.title if isinstance(item, Section) else "Start"
        _sections.setdefault(str(title), []).extend(_pages(item))
    return nav


def on_post_build(config: MkDocsConfig) -> None:
    """Write the files beside the pages."""
    site = Path(config.site_dir)
    lines, whole = [f"# {config.site_name}", "", f"> {config.site_description}"], []
    for title, pages in _sections.items():
        lines += ["", f"## {title}", ""]
        for page in pages:
            text = page.markdown or ""
            file = site / page.file.src_uri
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            whole.append(f"<!-- {page.file.src_uri} -->\n\n{text.strip()}\n")
            about = summary(text)
            lines.append(f"- [{page.title}]({page.file.src_uri})" + (f": {about}" if about else ""))
    (site / "llms.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(whole), encoding="utf-8")


def summary(markdown: str) -> str:
    """Return the first sentence of a page's first paragraph, without links; nothing of a page without prose.

    >>> summary("# Title\\n\\n| a | b |\\n\\nWhat [it](a.md) is\\nfor. And more.")
    'What it is for.'
    """
    paragraphs = re.split(r"\n\s*\n", re.sub(r"```.*?```|<!--.*?-->", "", markdown, flags=re.S))
    prose = next((text for text in map(str.strip, paragraphs) if text and text[0] not in "#|>:-!"), "")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(prose.split())).replace("**", "")
    return re.split(r"(?<=[.:?]) (?=[A-Z`])", plain, maxsplit=1)[0]


def _pages(item: object) -> Iterator[Page]:
    if isinstance(item, Page):
        yield item
    elif isinstance(item, Section):
        for child in item.children:
            yield from _pages(child)
