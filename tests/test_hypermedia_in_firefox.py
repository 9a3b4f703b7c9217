"""The examples for htmx, Turbo, Datastar, Alpine and VueUse in Firefox: a page shows
what is bought, and goes on where it was after a cut."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from .browsers import proxied
from .client_packages import CDN, cdn_file, npm_packages
from .firefox import Firefox, firefox
from .servers import serve, until

#: Milliseconds after which the browser comes back.
RETRY = 100

EXAMPLES = ["htmx", "htmx2", "turbo", "datastar", "alpine", "vueuse"]

#: What the page shows of the stock.
STOCK = "[...document.querySelectorAll('li b')].map(amount => amount.textContent)"


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    npm_packages()


@pytest.fixture(scope="module")
def browser() -> Iterator[Firefox]:
    with firefox() as browser:
        browser.serve(urlsplit(CDN).netloc, cdn_file)
        yield browser


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_shows_what_is_bought_and_goes_on_where_it_was(
    browser: Firefox, name: str
) -> None:
    with (
        serve("werkzeug", app=f"examples/{name}.py", SSE_RETRY=RETRY) as server,
        proxied(server) as proxy,
    ):
        browser.goto(proxy.url)
        assert browser.evaluate(STOCK) == ["10", "10"]
        browser.evaluate("document.querySelector('li button').click()")
        until(lambda: browser.evaluate(STOCK) == ["9", "10"])
        proxy.cut()
        assert server.request("POST", "/buy/pears").status == 204
        proxy.mend()
        until(lambda: browser.evaluate(STOCK) == ["9", "9"])
        browser.goto("about:blank")
