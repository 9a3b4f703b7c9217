"""Pages that are read in two places: on GitHub as they stand, and on the site.

Here lives what makes the site's pages of those that GitHub shows. Links are written
for GitHub: ```text <page.rst>`_`` and ```text <../file>`_``. GitHub shows Sphinx's own
roles (``:doc:``, ``:ref:``) as code that leads nowhere, and Sphinx can be taught the
other form. So this module turns each relative link into one that leads to the page on
the site, or to the file in the repository. It warns of a link to a page, a file or an
anchor that does not exist.

The index is a list of links for the same reason. Each of its sections becomes a chapter
of the site's navigation, so a page is added to both by one line.

Nothing here is about what a page says.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

from docutils import nodes
from docutils.utils import get_source_line
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent

#: The pages' folder, as a path within the repository.
DOCS = PurePosixPath("docs")

#: Where the repository's files are read by those who have no checkout.
REPOSITORY = "https://github.com/flask-sse-lite/flask_sse_lite/blob/HEAD/"

#: Where GitHub has the repository's images. The README names them so, because package
#: indexes show it too. A page of the site loads nothing from another host.
RAW = "https://raw.githubusercontent.com/flask-sse-lite/flask_sse_lite/HEAD/"

#: Files outside of ``docs/`` that are pages of the site, each with the page that
#: includes it.
INCLUDED = {
    "README.rst": "overview",
    "CHANGES.rst": "changes",
    "CONTRIBUTING.rst": "contributing",
}

#: Languages that are shown without colours. Pygments does not know the first two, and
#: takes Apache's ``Status:`` for an error in the third. GitHub knows all of them.
PLAIN_LANGUAGES = ("haproxy", "caddy", "http")

#: A reference's attribute: the path in the repository that it leads to.
PATH = "path_in_repository"

#: A chapter of the index: its heading, and everything up to the next.
CHAPTER = re.compile(r"^(.+)\n-{3,}\n((?:(?!.+\n-{3,}\n).*\n)+)", re.MULTILINE)

#: A line of the index that names a page.
ENTRY = re.compile(r"^- `([^`<]+) <([^>`]+)>`_", re.MULTILINE)


def page_of(path: str) -> str | None:
    """The name that Sphinx has for a file's page; None where the file is no page.

    :param path: a path within the repository.
    """
    file = PurePosixPath(path)
    if file.parent == DOCS and file.suffix == ".rst":
        return file.stem
    return INCLUDED.get(path)


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Have each list of the index be a chapter of the navigation, too."""
    if docname == app.config.root_doc:
        source[0] = CHAPTER.sub(_with_navigation, source[0])


def _with_navigation(chapter: re.Match[str]) -> str:
    title = chapter[1]
    pages = [
        f"   {text} <{page_of(normpath(str(DOCS / target)))}>"
        for text, target in ENTRY.findall(chapter[2])
    ]
    head = f".. toctree::\n   :hidden:\n   :caption: {title}\n"
    return "\n".join([chapter[0], head, *pages, "", ""]) if pages else chapter[0]


class NotePaths(SphinxTransform):
    """Note which file of the repository a relative link leads to. Only here is it known
    in which file the link was written: a page can include another."""

    #: After docutils has found the targets of all links (640), before Sphinx collects
    #: the images.
    default_priority = 700

    def apply(self) -> None:
        for image in self.document.findall(nodes.image):
            if image["uri"].startswith(f"{RAW}{DOCS}/"):
                image["uri"] = image["uri"].removeprefix(f"{RAW}{DOCS}/")
        for link in self.document.findall(nodes.reference):
            uri = link.get("refuri", "")
            if uri.startswith(REPOSITORY):
                link[PATH] = uri.removeprefix(REPOSITORY)
            elif uri and not re.match(r"[a-z]+:|#|/", uri):
                written = get_source_line(link)[0] or self.document["source"]
                file = Path(written).resolve()
                folder = file.parent.relative_to(ROOT).as_posix()
                path, *anchor = uri.split("#")
                link[PATH] = "#".join([normpath(f"{folder}/{path}"), *anchor])


def resolve_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Lead each link to where its file is read."""
    for link in doctree.findall(nodes.reference):
        if PATH not in link:
            continue
        path, _, anchor = link[PATH].partition("#")
        page = page_of(path)
        if page is None or page not in app.env.found_docs:
            link["refuri"] = REPOSITORY + path
            if not (ROOT / path).exists() or page is not None:
                logger.warning(
                    "A link leads to %s, which is not there", path, location=link
                )
            continue
        link["refuri"] = app.builder.get_relative_uri(docname, page)
        link["internal"] = True
        if anchor:
            link["refuri"] += f"#{anchor}"
            if anchor not in _anchors(app, page):
                logger.warning("%s has no anchor #%s", page, anchor, location=link)


def _anchors(app: Sphinx, page: str) -> set[str]:
    found = app.env.get_doctree(page).findall(nodes.Element)
    return {anchor for node in found for anchor in node.get("ids", ())}


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("source-read", add_navigation)
    app.add_transform(NotePaths)
    app.connect("doctree-resolved", resolve_links)
    for language in PLAIN_LANGUAGES:
        app.add_lexer(language, TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
