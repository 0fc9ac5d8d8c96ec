"""The repository as the site sees it: its URL, the pages that lie outside of docs/, and links between all of them.

Pages link to each other and to source files by relative paths, as GitHub reads them. In the site, a link to a file that
is a page or a picture there stays relative, and every other one leads to the file on GitHub.
"""

from __future__ import annotations

import os
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
URL: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
BRANCH = "main"
OUTSIDE = {  # file of the repository -> page of the site
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/NOTES.md": "benchmarks-notes.md",
    "examples/README.md": "examples.md",
}
PICTURES = (".png", ".jpg", ".svg", ".gif", ".webp")
LINK = re.compile(r"(\]\(|<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\")([^)\s\"#]+)((?:#[^)\s\"]*)?)")
CODE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[ \t]*$|(`+)(?!`).*?(?<!`)\3(?!`)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Set the repository's URL, and write out the folders of the navigation."""
    config.repo_url, config.repo_name = URL, URL.removeprefix("https://github.com/")
    config.watch.append(str(ROOT / "orthogan"))
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside of docs/, and write out the folders of the navigation."""
    for path in sorted((ROOT / "pretrained").rglob("*")):
        if path.suffix in (".md", *PICTURES):
            source = path.relative_to(ROOT).as_posix()
            OUTSIDE[source] = source.replace("README.md", "index.md")
    for source, page in OUTSIDE.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    config.nav = _written_out(config.nav, _pages(config.nav), files)
    shown = _pages(config.nav)
    rest = [page for page in OUTSIDE.values() if page not in shown and files.get_file_from_path(page)]
    next(iter(config.nav[-1].values())).extend(rest)  # the last section is that of the project
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Lead relative links to the page of the site, or to GitHub."""
    inside = {page: source for source, page in OUTSIDE.items()}
    source = inside.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    here = posixpath.dirname(page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        start, target, anchor = match.groups()
        if re.match(r"[a-z]+:|/", target):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        known = OUTSIDE.get(file, file.removeprefix("docs/") if file.startswith("docs/") else "")
        known = re.sub(r"\.ipynb$", ".md", known)
        page_there = files.get_file_from_path(known)
        if page_there is not None and page_there.inclusion.is_included():
            return f"{start}{os.path.relpath(known, here or '.')}{anchor}"
        if not (ROOT / file).exists():
            return match[0]  # mkdocs warns of it
        kind = "tree" if (ROOT / file).is_dir() else "raw" if file.endswith(PICTURES) else "blob"
        return f"{start}{URL}/{kind}/{BRANCH}/{file}{anchor}"

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(led, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(led, markdown[end:])])


def _pages(nav: Any) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    return set().union(*(_pages(one) for one in (nav.values() if isinstance(nav, dict) else nav)))


def _written_out(nav: list[Any], listed: set[str], files: Files) -> list[Any]:
    """``nav`` with the pages of a folder in place of its name, ``folder/``; the rest of the folder's page names it."""
    done: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, list):
            done.append({title: _written_out(value, listed, files)})
        elif value.endswith("/"):
            found = (file.src_uri for file in files.documentation_pages() if file.src_uri.startswith(value))
            pages = sorted(
                (page for page in found if page not in listed), key=lambda page: (page != f"{value}index.md", page)
            )
            done += [{title: pages}] if title else pages
        else:
            done.append(entry)
    return done
