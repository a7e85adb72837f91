"""Takes the pages that lie outside docs/ into the site: README, contributing, changelog, workflows, cluster files.

Links in the Markdown are those of the repository, so that a code host follows them too; here each is turned into a
link between pages of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
FILES = ("LICENSE", *(f"workflows/**/*.{suffix}" for suffix in ("md", "yaml", "py", "png")), "cluster/**/*")
LINK = re.compile(r"(?P<before>\]\(|src=\")(?P<target>[^)#\s\"]+)(?P<anchor>#[^)\s\"]*)?")


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside docs/."""
    outside = (found.relative_to(ROOT) for one in FILES for found in sorted(ROOT.glob(one)) if found.is_file())
    for path in (*PAGES, *map(str, outside)):
        files.append(File.generated(config, place_in_site(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links of the repository into links of the site."""
    uri = page.file.src_uri
    here = next((path for path, place in PAGES.items() if place == uri), uri)
    if here == uri and not uri.startswith(("workflows/", "cluster/")):
        here = f"docs/{uri}"

    def turned(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        place = posixpath.relpath(place_in_site(path), posixpath.dirname(uri) or ".")
        return f"{match['before']}{place}{match['anchor'] or ''}"

    return LINK.sub(turned, markdown)


def place_in_site(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return PAGES.get(path, path.removeprefix("docs/"))
