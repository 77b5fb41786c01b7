"""Links of the pages, from paths of the repository to paths of the site.

Pages link to files as they lie in the repository, so that they can be read there. The site has the
pages of `docs/`, copies of the pages of `experiments/`, and downloads of other files.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXPERIMENTS = ROOT / "experiments"
GENERATED = DOCS / "_generated"
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
TEXT_AND_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
COPIED = ("README.md", "REPRODUCED.md", "results/*.md", "results/*/*.png")
"""Pages and pictures of `experiments/` that the site has, too."""


def copy_experiments() -> None:
    """Copy the pages of `experiments/` and their pictures to where Sphinx reads them."""
    target = GENERATED / "experiments"
    shutil.rmtree(target, ignore_errors=True)
    for pattern in COPIED:
        for path in EXPERIMENTS.glob(pattern):
            copy = target / path.relative_to(EXPERIMENTS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def with_site_links(text: str, docname: str) -> str:
    """Replace links to files of the repository by links of the site.

    A link to a folder, which the site does not have, becomes its text.

    Arguments:
        text: Markdown.
        docname: Name of the page in the site, such as `howto/gpu`.
    """
    page = _source_of(docname)
    without_folders = TEXT_AND_LINK.sub(lambda m: _text_if_folder(m, page), text)
    return LINK.sub(lambda m: f"]({_site_link(m[1], page, docname)}{m[2] or ''})", without_folders)


def _source_of(docname: str) -> Path:
    """The file of the repository that a page of the site shows."""
    if docname.startswith("_generated/experiments/"):
        return ROOT / f"{docname.removeprefix('_generated/')}.md"
    return DOCS / f"{docname}.md"


def _text_if_folder(match: re.Match[str], page: Path) -> str:
    if (page.parent / match[2]).is_dir():
        return match[1]
    return match[0]


def _site_link(link: str, page: Path, docname: str) -> str:
    target = Path(os.path.normpath(page.parent / link))
    if target.is_relative_to(DOCS):
        return f"/{target.relative_to(DOCS)}"
    if _is_copied(target):
        return f"/_generated/{target.relative_to(ROOT)}"
    return os.path.relpath(target, (DOCS / docname).parent)


def _is_copied(path: Path) -> bool:
    if not path.is_relative_to(EXPERIMENTS):
        return False
    inside = path.relative_to(EXPERIMENTS)
    return any(inside.match(pattern) for pattern in COPIED)
