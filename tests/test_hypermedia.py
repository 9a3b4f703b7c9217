"""The examples for htmx, Turbo, Datastar, Alpine and VueUse, each in a browser: pages
show what is bought, in whatever window, and come back after a cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from .browsers import (
    WINDOWS,
    Proxy,
    Scheme,
    blank_page,
    check_look,
    chromium,
    proxied,
)
from .client_packages import npm_packages, serve_cdn
from .servers import PATIENCE, ROOT, Server, serve, until

#: Milliseconds after which the browser comes back.
RETRY = 100

#: Events that the server keeps.
HISTORY = 2


class Example(NamedTuple):
    """An example, and what its library cannot do."""

    name: str
    #: The page is told when events were lost.
    hears_gaps: bool = True

    def __str__(self) -> str:
        return self.name


EXAMPLES = [
    Example("htmx"),
    Example("htmx2"),
    Example("turbo", hears_gaps=False),
    Example("datastar", hears_gaps=False),
    Example("alpine"),
    Example("vueuse"),
]


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    npm_packages()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=EXAMPLES, ids=str)
def example(request: pytest.FixtureRequest) -> Example:
    example: Example = request.param
    return example


@pytest.fixture
def server(example: Example) -> Iterator[Server]:
    app = f"examples/{example.name}.py"
    with serve("werkzeug", app=app, SSE_RETRY=RETRY, SSE_HISTORY=HISTORY) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxied(server) as proxy:
        yield proxy


@contextmanager
def opened(browser: Browser, proxy: Proxy, **options: Any) -> Iterator[Page]:
    """The example's page, once its stream is open. Its scripts must not fail.

    :param options: those of the browser's context.
    """
    with blank_page(browser, **options) as page:
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        serve_cdn(page)
        with page.expect_response(is_stream):
            page.goto(proxy.url)
        yield page
        assert failures == []


def test_the_documentation_names_the_versions_that_are_tested() -> None:
    page = (ROOT / "docs" / "hypermedia.rst").read_text("utf-8")
    for example in EXAMPLES:
        text = (ROOT / "examples" / f"{example.name}.py").read_text("utf-8")
        versions = re.findall(r"@v?(\d+\.\d+\.\d+)/", text)
        assert [version for version in versions if version not in page] == []
        assert f"``{example.name}.py``" in page


def is_stream(answer: Response) -> bool:
    return answer.headers.get("content-type", "").startswith("text/event-stream")


def expect_stock(page: Page, apples: int, pears: int) -> None:
    """Wait until a page shows what is there."""
    amounts = page.locator("li b")
    expect(amounts).to_have_text([str(apples), str(pears)], timeout=PATIENCE * 1000)


def buy(page: Page, what: str) -> None:
    """Press the button that buys one, as a visitor does, and wait for the answer: a cut
    in between would be an error of the page."""
    with page.expect_response(f"**/buy/{what}") as answer:
        page.locator("li", has_text=what).locator("button").click()
    assert answer.value.status == 204


def test_what_one_window_buys_all_windows_show(browser: Browser, proxy: Proxy) -> None:
    with ExitStack() as stack:
        pages = [stack.enter_context(opened(browser, proxy)) for _ in range(2)]
        for page in pages:
            expect_stock(page, 10, 10)
        buy(pages[0], "apples")
        for page in pages:
            expect_stock(page, 9, 10)
        # What was swapped in works as what was there before.
        buy(pages[1], "apples")
        buy(pages[1], "pears")
        for page in pages:
            expect_stock(page, 8, 9)


def test_a_page_that_is_cut_goes_on_where_it_was(
    browser: Browser, server: Server, proxy: Proxy
) -> None:
    with opened(browser, proxy) as page:
        buy(page, "apples")
        expect_stock(page, 9, 10)
        proxy.cut()
        until(lambda: server.request("POST", "/buy/pears").status == 204)
        proxy.mend()
        expect_stock(page, 9, 9)


def test_a_page_that_is_told_of_a_gap_loads_the_state_again(
    browser: Browser, example: Example, server: Server, proxy: Proxy
) -> None:
    with opened(browser, proxy) as page:
        buy(page, "apples")
        expect_stock(page, 9, 10)
        proxy.cut()
        server.request("POST", "/buy/pears")
        for _ in range(HISTORY):
            server.request("POST", "/buy/apples")
        proxy.mend()
        expect_stock(page, 9 - HISTORY, 9 if example.hears_gaps else 10)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_its_window_and_follows_the_systems_colours(
    browser: Browser, proxy: Proxy, scheme: Scheme
) -> None:
    for window in WINDOWS.values():
        with opened(browser, proxy, color_scheme=scheme, **window) as page:
            check_look(page, scheme)
            lines = [f"{name}: 10 Buy" for name in ("apples", "pears")]
            expect(page.locator("li:visible")).to_have_text(lines)
