"""The documentation site builds strict, holds every page, and loads nothing from another host."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs extra docs"),
]
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """Collects what a page loads, where it links to, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag in LOADED and LOADED[tag] in found and found.get("rel") not in ("canonical", "prev", "next"):
            self.loads.add(found[LOADED[tag]])
        if tag == "a" and "href" in found:
            self.links.add(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True)
    assert built.returncode == 0, built.stderr.decode()
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_markdown_page_is_in_the_site_and_in_its_navigation(site: Path, pages: dict[Path, Page]) -> None:
    home = pages[site / "index.html"]
    linked = {(site / unquote(urldefrag(link)[0])).resolve() for link in home.links if "://" not in link}
    named = {path if path.suffix == ".html" else path / "index.html" for path in linked}
    sources = [path for folder in ("docs", "workflows", "cluster") for path in (CHECKOUT / folder).rglob("*.md")]
    assert len(pages) == len(sources) + len(list(CHECKOUT.glob("*.md")))
    assert sorted(str(path.relative_to(site)) for path in set(pages) - named) == []


def test_links_and_pictures_of_the_site_are_there(site: Path, pages: dict[Path, Page]) -> None:
    missing = []
    for path, page in pages.items():
        for target in page.links | page.loads:
            link, anchor = urldefrag(unquote(target))
            if "://" in link or link.startswith(("mailto:", "data:")):
                continue
            file = (path.parent / link).resolve() if link else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].anchors):
                missing.append(f"{path.relative_to(site)} → {target}")
    assert missing == []


def test_the_site_loads_nothing_from_another_host(pages: dict[Path, Page]) -> None:
    assert {load for page in pages.values() for load in page.loads if load.startswith(("http", "//"))} == set()
