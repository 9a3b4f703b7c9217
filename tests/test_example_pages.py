"""The examples of one file, each in a browser: hello, progress, notifications,
dashboard and chat, served by the command that stands in them.

Those for htmx and its like are tested in ``test_hypermedia.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from .browsers import WINDOWS, Scheme, blank_page, check_look, chromium, proxied
from .redis_servers import redis_server
from .servers import PATIENCE, ROOT, Server, serve
from .task_queues import working

EXAMPLES = ["hello", "progress", "notifications", "dashboard", "chat"]

#: Examples that do the job of another in a task queue, each with that other.
SIBLINGS = {"progress_celery": "progress", "progress_rq": "progress"}

#: Milliseconds that a page can take.
PAGE_PATIENCE = PATIENCE * 1000

#: Milliseconds after which a browser comes back.
RETRY = 100


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def served(name: str) -> Iterator[Server]:
    """An example, as its command serves it."""
    app = f"examples/{name}" if name == "factory" else f"examples/{name}.py"
    with serve("werkzeug", app=app, SSE_RETRY=RETRY) as server:
        yield server


@contextmanager
def visitors(browser: Browser, url: str, count: int) -> Iterator[list[Page]]:
    """Pages of so many visitors, each with cookies of its own. No script can fail."""
    failures: list[str] = []
    with ExitStack() as stack:
        pages = [stack.enter_context(blank_page(browser)) for _ in range(count)]
        for page in pages:
            page.on("pageerror", lambda error: failures.append(str(error)))
            page.goto(url)
        yield pages
        assert failures == []


def fill(page: Page, button: str, **texts: str) -> None:
    """Fill in the form of a button, and press it."""
    for name, text in texts.items():
        page.fill(f"input[name={name}]", text)
    page.get_by_role("button", name=button).click()


def expect_texts(page: Page, selector: str, *texts: str) -> None:
    expect(page.locator(selector)).to_have_text(list(texts), timeout=PAGE_PATIENCE)


@pytest.mark.parametrize("name", [*EXAMPLES, *SIBLINGS])
def test_an_example_begins_with_the_command_that_runs_it(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    opening = " ".join(text.splitlines()[:5])
    assert f"``flask --app examples/{name}.py run``" in opening


@pytest.mark.parametrize("name", [*EXAMPLES, *SIBLINGS])
def test_the_index_of_the_examples_leads_to_it(name: str) -> None:
    page = (ROOT / "docs" / "examples.rst").read_text("utf-8")
    assert f"`{name}.py <../examples/{name}.py>`_" in page


def test_hello_shows_in_all_windows_what_one_says(browser: Browser) -> None:
    with served("hello") as server, visitors(browser, server.url, 2) as pages:
        one, other = pages
        with one.expect_response("**/say"):
            fill(one, "Say", text="<b>hello</b>")
        for page in pages:
            expect_texts(page, "#said li", "<b>hello</b>")
        fill(other, "Say", text="and you")
        for page in pages:
            expect_texts(page, "#said li", "<b>hello</b>", "and you")


def follow_a_job(browser: Browser, server: Server) -> None:
    """Start a job in a page, follow it to its end, and look at the page again."""
    with visitors(browser, server.url, 1) as (page,):
        fill(page, "Resize pictures")
        expect(page.locator("#note")).to_be_visible()
        expect_texts(page, "#note", "20 of 20 pictures")
        assert page.locator("progress").evaluate("bar => bar.value / bar.max") == 1
        # The job is over, and its channel closed. Who looks again sees how it ended.
        page.reload()
        expect_texts(page, "#note", "20 of 20 pictures")


def test_progress_of_a_thread_is_followed_and_outlives_a_reload(
    browser: Browser,
) -> None:
    with served("progress") as server:
        follow_a_job(browser, server)


@pytest.mark.parametrize("name", SIBLINGS)
def test_progress_of_a_task_queue_is_followed_and_outlives_a_reload(
    browser: Browser, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text("utf-8")
    (command,) = re.findall(r"in another\s+terminal ``(.+?)``", text)
    with redis_server() as store:
        monkeypatch.setenv("REDIS_URL", store.url)
        monkeypatch.setenv("RQ_REDIS_URL", store.url)
        with (
            served(name) as server,
            working(command, ROOT, store, tmp_path / "worker.log"),
        ):
            follow_a_job(browser, server)


def test_notifications_reach_one_user_in_all_tabs_and_end_with_a_logout(
    browser: Browser,
) -> None:
    with (
        served("notifications") as server,
        visitors(browser, server.url, 2) as (ann, bob),
    ):
        fill(ann, "Log in", user="ann")
        fill(bob, "Log in", user="bob")
        with ann.context.new_page() as tab:
            tab.goto(server.url)
            fill(bob, "Notify", to="ann", text="Your order is ready.")
            for page in (ann, tab):
                expect_texts(page, "#notices li", "bob: Your order is ready.")
            expect_texts(bob, "#notices li")
            # The logout in the newer tab ends the stream, which the older one holds.
            fill(tab, "Log out")
            expect_texts(ann, "#state", "You are logged out.")
        # The others' streams go on.
        fill(bob, "Notify", to="bob", text="Still here.")
        expect_texts(bob, "#notices li", "bob: Still here.")
    with served("notifications") as server:
        assert server.request("GET", "/notifications").status == 401
        assert server.request("POST", "/notify").status == 401


def sell(page: Page, what: str) -> None:
    section = page.locator("section", has_text=what)
    with page.expect_response(f"**/sold/{what}") as answer:
        section.get_by_role("button").click()
    assert answer.value.status == 204


def test_the_dashboard_follows_its_figures_from_where_they_were_read(
    browser: Browser,
) -> None:
    with (
        served("dashboard") as server,
        proxied(server) as proxy,
        visitors(browser, proxy.url, 2) as pages,
    ):
        sell(pages[0], "apples")
        sell(pages[1], "apples")
        sell(pages[1], "plums")
        for page in pages:
            expect_texts(page, "output", "2", "0", "1")
        proxy.cut()
        assert server.request("POST", "/sold/pears").status == 204
        proxy.mend()
        for page in pages:
            expect_texts(page, "output", "2", "1", "1")


def test_a_sale_between_the_page_and_its_stream_is_shown(browser: Browser) -> None:
    with served("dashboard") as server, blank_page(browser) as page:

        def sell_first(route: Route) -> None:
            """Sell one before the page's stream is asked for."""
            assert server.request("POST", "/sold/apples").status == 204
            route.continue_()

        page.route(re.compile("/stream$"), sell_first)
        page.goto(server.url)
        expect_texts(page, "output", "1", "0", "0")


def test_the_chat_shows_what_is_said_and_who_is_there(browser: Browser) -> None:
    with (
        served("chat") as server,
        visitors(browser, server.url, 2) as (ann, bob),
    ):
        fill(ann, "Enter", user="ann")
        expect_texts(ann, "#here li", "ann")
        fill(ann, "Send", text="Is <i>anybody</i> here?")
        expect_texts(ann, "#said li", "ann: Is <i>anybody</i> here?")
        fill(bob, "Enter", user="bob")
        # Who comes later sees what was said, and is seen.
        expect_texts(bob, "#said li", "ann: Is <i>anybody</i> here?")
        for page in (ann, bob):
            expect_texts(page, "#here li", "ann", "bob")
        fill(bob, "Send", text="I am.")
        for page in (ann, bob):
            expect_texts(page, "#said li", "ann: Is <i>anybody</i> here?", "bob: I am.")
        fill(bob, "Leave")
        expect_texts(ann, "#here li", "ann")
        assert server.request("GET", "/rooms/Kitchen/events").status == 401


def test_the_factorys_desk_shows_all_what_one_does(browser: Browser) -> None:
    with (
        served("factory") as server,
        visitors(browser, server.url, 2) as (ann, bob),
    ):
        fill(ann, "Log in", user="ann")
        fill(bob, "Log in", user="bob")
        fill(ann, "Open a ticket", text="<b>It hangs.</b>")
        for page in (ann, bob):
            expect_texts(page, "#tickets li", "<b>It hangs.</b> (ann) Close")
        bob.get_by_role("button", name="Close").click()
        for page in (ann, bob):
            expect_texts(page, "#tickets li.closed", "<b>It hangs.</b> (ann)")
        with ann.context.new_page() as tab:
            tab.goto(server.url)
            expect_texts(tab, "#tickets li.closed", "<b>It hangs.</b> (ann)")
            # The logout in the newer tab leads the older one to the login, too.
            fill(tab, "Log out")
            expect(ann.locator("input[name=user]")).to_be_visible(timeout=PAGE_PATIENCE)


def test_the_factorys_own_tests_pass_in_a_folder_of_their_own(tmp_path: Path) -> None:
    copy = tmp_path / "factory"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples" / "factory", copy, ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:ddtrace"],
        cwd=copy,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * 4,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b10 passed", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("name", "path", "stream"),
    [
        ("chat", "/enter", "/rooms/Kitchen/events"),
        ("notifications", "/login", "/notifications"),
        ("factory", "/login", "/events"),
    ],
)
def test_who_gives_no_name_or_a_very_long_one_is_not_locked_out(
    name: str, path: str, stream: str
) -> None:
    with served(name) as server:
        visitor = build_opener(HTTPCookieProcessor())
        with pytest.raises(HTTPError) as refused:
            visitor.open(server.url + path, b"user=", PATIENCE)
        with refused.value as answer:
            assert answer.code == 400
        visitor.open(server.url + path, b"user=" + b"x" * 1000, PATIENCE).close()
        with visitor.open(server.url + stream, timeout=PATIENCE) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*EXAMPLES, "factory"])
def test_a_page_fits_its_window_and_follows_the_systems_colours(
    browser: Browser, name: str, scheme: Scheme
) -> None:
    with served(name) as server:
        for window in WINDOWS.values():
            with blank_page(browser, color_scheme=scheme, **window) as page:
                page.goto(server.url)
                check_look(page, scheme)
