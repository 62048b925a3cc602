"""What MkDocs runs for the site: links from a page to files of the repository.

On GitHub `[trainer](../rilbench/train/trainer.py)` is a link. On the site it becomes a link to the
repository where its address is known (`REPO_URL`), else plain text. A file that does not exist is a
warning, which `--strict` makes an error.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.repository_links")


def on_page_markdown(markdown, *, page, config, files):
    """Replace the links that lead out of the documentation's folder."""
    docs = Path(config.docs_dir)

    def replace(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = (docs / target).resolve()
        if not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_path, target)
        if not config.repo_url:
            return text
        kind = "tree" if path.is_dir() else "blob"
        name = path.relative_to(docs.parent.resolve()).as_posix()
        return f"[{text}]({config.repo_url.rstrip('/')}/{kind}/main/{name}{anchor})"

    return LINK.sub(replace, markdown)
