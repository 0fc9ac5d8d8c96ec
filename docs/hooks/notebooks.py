"""Every docs/**/*.ipynb as a page of the site, with its saved outputs and a link that opens it in Colab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from repository import BRANCH, URL


def on_files(files: Files, config: Any) -> Files:
    """Replace each notebook by a page and its pictures."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = notebook.src_uri.removesuffix(".ipynb")
        text, resources = MarkdownExporter().from_filename(str(notebook.abs_src_path))
        for picture, content in resources["outputs"].items():
            text = text.replace(f"]({picture})", f"]({Path(name).name}-{picture})")
            files.append(File.generated(config, f"{name}-{picture}", content=content))
        links = (
            f"[Open in Colab]({URL.replace('github.com', 'colab.research.google.com/github')}/blob/{BRANCH}/docs/"
            f"{notebook.src_uri}) · [notebook on GitHub]({URL}/blob/{BRANCH}/docs/{notebook.src_uri})\n"
        )
        title, _, rest = text.lstrip().partition("\n")
        files.remove(notebook)
        files.append(File.generated(config, f"{name}.md", content=f"{title}\n\n{links}\n{rest}"))
    return files
