"""The documentation as a site: it is built without a warning, every link in it leads
somewhere, it loads nothing from another host, and it can be read on a phone, and
searched.

What the pages say is tested in ``test_documentation.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Literal
from urllib.parse import urldefrag, urlsplit

import pytest
from blinker import NamedSignal
from playwright.sync_api import Browser, Request

import flask_sse_lite
from flask_sse_lite import brokers, testing

from .browsers import blank_page, chromium
from .patience import patient
from .servers import HOST, ROOT
from .serving import serving

DOCS = ROOT / "docs"

#: Seconds that a build may take.
BUILD_PATIENCE = patient(300)

#: A line of the index that names a page.
ENTRY = re.compile(r"^- `[^`<]+ <([^>`]+)>`_", re.MULTILINE)

#: Pages that show a file from elsewhere, with the file.
INCLUDING = {
    "overview.rst": "../README.rst",
    "changes.rst": "../CHANGES.rst",
    "contributing.rst": "../CONTRIBUTING.rst",
}

#: Attributes of what a browser loads without being asked to.
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src"}

#: The widths of a phone and of a desktop, in CSS pixels.
WIDTHS = (390, 1280)

#: Questions as they are typed into the search, each with a page that must be found.
QUESTIONS = {
    "nothing arrives": "troubleshooting.html",
    "comes in bursts": "troubleshooting.html",
    "403": "troubleshooting.html",
    "silent after deploy": "troubleshooting.html",
    "six tabs": "troubleshooting.html",
    "502": "troubleshooting.html",
    "204": "troubleshooting.html",
    "reload hangs": "troubleshooting.html",
    "events twice": "troubleshooting.html",
    "generator goes on": "troubleshooting.html",
    "events missing": "troubleshooting.html",
    "SQLite file grows": "troubleshooting.html",
    "failover": "troubleshooting.html",
    "CPU": "troubleshooting.html",
    "too many open files": "deployment.html",
    "stop run": "troubleshooting.html",
    "drain": "deployment.html",
    "SSE-W24": "log-messages.html",
    "page reloads again": "troubleshooting.html",
    "downgrade": "deployment.html",
    "take event back": "troubleshooting.html",
    "stream-gap": "resuming.html",
    "celery": "tasks-with-celery-and-rq.html",
    "publish_after_commit": "api.html",
    "file descriptors": "deployment.html",
}


#: Whether the search is over, with a result or without one.
SEARCHED = """
() => {
    const told = document.querySelector(".search-summary");
    return /finished|did not match/.test(told?.textContent);
}
"""

#: Results that a reader sees without scrolling.
FIRST = 5


def sphinx(pages: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a site as ``make docs`` does."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning"),
            *("--doctree-dir", str(folder / "doctrees")),
            *(str(pages), str(folder / "site")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_PATIENCE,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages. The build fails at a warning."""
    folder = tmp_path_factory.mktemp("documentation")
    built = sphinx(DOCS, folder)
    assert (built.returncode, built.stdout) == (0, "")
    return folder / "site"


class Tags(HTMLParser):
    """What a page names: anchors of its own, links, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.append(found[LOADED[tag]])


tags = cache(Tags)


def pages_of(site: Path) -> list[Path]:
    return sorted(site.glob("*.html"))


# What is built


def test_every_page_is_in_the_index_once() -> None:
    named = ENTRY.findall((DOCS / "index.rst").read_text("utf-8"))
    pages = {path.name for path in DOCS.glob("*.rst")} - {"index.rst"}
    assert sorted(named) == sorted(INCLUDING.get(page, page) for page in pages)


def test_the_chapters_of_the_index_are_those_of_the_navigation(site: Path) -> None:
    index = (DOCS / "index.rst").read_text("utf-8")
    chapters = re.findall(r"^(.+)\n-{3,}$", index, re.MULTILINE)
    page = (site / "index.html").read_text("utf-8")
    shown = re.findall(r'class="caption"[^>]*><span class="caption-text">(.+?)<', page)
    assert shown == chapters


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(site: Path) -> None:
    pages = pages_of(site)
    assert len(pages) > len(list(DOCS.glob("*.rst")))  # The search is a page, too.
    wrong = []
    for page in pages:
        for link in tags(page).links:
            if urlsplit(link).scheme:
                continue
            path, anchor = urldefrag(link)
            target = page if not path else (page.parent / path).resolve()
            is_there = target.is_file()
            if not is_there or (anchor and anchor not in tags(target).anchors):
                wrong.append((page.name, link))
    assert wrong == []


def test_a_link_between_pages_stays_on_the_site(site: Path) -> None:
    # GitHub's addresses of the same pages stand in the README.
    for page in pages_of(site):
        links = [
            link
            for link in tags(page).links
            if re.search(r"/blob/HEAD/(docs/[\w-]+|README|CHANGES)\.rst", link)
        ]
        assert links == [], page.name


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for page in pages_of(site):
        assert [url for url in tags(page).loaded if urlsplit(url).netloc] == []
    for sheet in site.rglob("*.css"):
        text = sheet.read_text("utf-8")
        for url in re.findall(r"(?:url\(|@import\s+)[\"']?([^)\"';]+)", text):
            assert not urlsplit(url).netloc, (sheet.name, url)


def test_links_to_nowhere_end_the_build(tmp_path: Path) -> None:
    built = small_site(
        tmp_path,
        "- `A page <page.rst>`_: all.\n",
        "`One <nothing.rst>`_, `two <../nothing.py>`_, `three <page.rst#nothing>`_.",
    )
    assert built.returncode == 1
    assert "A link leads to docs/nothing.rst" in built.stdout
    assert "A link leads to nothing.py" in built.stdout
    assert "page has no anchor #nothing" in built.stdout


def test_a_page_that_the_index_does_not_name_ends_the_build(tmp_path: Path) -> None:
    built = small_site(tmp_path, "Nothing.\n", "")
    assert built.returncode == 1
    assert "isn't included in any toctree" in built.stdout


def test_one_line_of_the_index_adds_a_page(tmp_path: Path) -> None:
    line = "See `it <page.rst#more>`_ and `the code <../a.py>`_."
    (tmp_path / "a.py").touch()
    built = small_site(tmp_path, "- `A page <page.rst>`_: all.\n", line)
    assert (built.returncode, built.stdout) == (0, "")
    links = Tags(tmp_path / "site" / "page.html").links
    assert "#more" in links
    assert any(link.endswith("/blob/HEAD/a.py") for link in links)


def small_site(
    folder: Path, entries: str, line: str
) -> subprocess.CompletedProcess[str]:
    """Build an index, and one page with a line."""
    pages = folder / "docs"
    pages.mkdir()
    shutil.copy(DOCS / "as_on_github.py", pages)
    (pages / "conf.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(pages)!r})\n"
        'extensions = ["as_on_github"]\n'
    )
    (pages / "index.rst").write_text(f"Index\n=====\n\nPages\n-----\n\n{entries}")
    (pages / "page.rst").write_text(f"Page\n====\n\n{line}\n\nMore\n----\n\nText.\n")
    return sphinx(pages, folder)


def test_the_projects_address_is_that_of_the_metadata() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (home,) = re.findall(r'^Source = "(.+)"$', project, re.MULTILINE)
    raw = home.replace("https://github.com/", "https://raw.githubusercontent.com/")
    source = (DOCS / "as_on_github.py").read_text("utf-8")
    assert f'REPOSITORY = "{home}/blob/HEAD/"' in source
    assert f'RAW = "{raw}/HEAD/"' in source
    assert f"<{home}>" in (DOCS / "index.rst").read_text("utf-8")


# The reference


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "api.rst").read_text("utf-8")
    named = re.findall(r"^\.\. (?:auto|py:)\w+:: flask_sse_lite\.(\S+)", page, re.M)
    assert len(named) == len(set(named))
    ready_made = {"sse"}
    assert set(flask_sse_lite.__all__) - ready_made <= set(named)
    others = set(named) - set(flask_sse_lite.__all__)
    for name in others:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(f"flask_sse_lite.{module}"), attribute), name
    for module in (testing, brokers):
        room = module.__name__.removeprefix("flask_sse_lite.")
        functions = {
            f"{room}.{name}"
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__
            and name[0] != "_"
            and callable(value)
        }
        assert functions <= others


def test_every_verb_stands_in_the_reference(site: Path) -> None:
    anchors = tags(site / "api.html").anchors
    for cls in (flask_sse_lite.SSE, flask_sse_lite.Publisher):
        for name, value in vars(cls).items():
            # Signals have a page of their own.
            if not name.startswith("_") and not isinstance(value, NamedSignal):
                assert f"flask_sse_lite.{cls.__name__}.{name}" in anchors


# In a browser


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    handler = partial(Quiet, directory=str(site))
    with serving(ThreadingHTTPServer((HOST, 0), handler)) as server:
        yield f"http://{HOST}:{server.server_address[1]}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


#: What is cut off at the right of the window, and cannot be scrolled.
CUT_OFF = """[...document.querySelectorAll("article *")]
    .filter(part => !part.closest(".table-wrapper, pre, svg"))
    .filter(part => part.getBoundingClientRect().right > innerWidth)
    .map(part => part.outerHTML.slice(0, 80))"""


#: Rows that were meant to be the second line of the row before.
SPLIT_ROWS = """[...document.querySelectorAll("td:first-child")]
    .map(cell => cell.innerText.trim()).filter(text => text.endsWith(","))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_the_window(
    site: Path, address: str, browser: Browser, scheme: Literal["light", "dark"]
) -> None:
    foreign: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((address, "data:")):
            foreign.append(request.url)

    with blank_page(browser, color_scheme=scheme) as page:
        page.on("request", note)
        for path in pages_of(site):
            page.goto(f"{address}/{path.name}")
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 844})
                measured = page.evaluate("document.documentElement.scrollWidth")
                assert measured <= width, path.name
                assert page.evaluate(CUT_OFF) == [], path.name
            assert page.evaluate(SPLIT_ROWS) == [], path.name
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            lightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
            assert (lightness < 128) == (scheme == "dark"), path.name
    assert foreign == []


def test_the_search_finds_the_page_that_answers(address: str, browser: Browser) -> None:
    viewport = {"width": WIDTHS[1], "height": 844}
    wrong = {}
    with blank_page(browser, viewport=viewport) as page:
        for question, answer in QUESTIONS.items():
            page.goto(f"{address}/index.html")
            page.fill("input.sidebar-search", question)
            page.press("input.sidebar-search", "Enter")
            page.wait_for_function(SEARCHED)
            links = page.eval_on_selector_all(
                "ul.search li > a", "links => links.map(a => a.getAttribute('href'))"
            )
            pages = [urlsplit(link).path.rpartition("/")[2] for link in links]
            if answer not in pages[:FIRST]:
                wrong[question] = pages
    assert wrong == {}
