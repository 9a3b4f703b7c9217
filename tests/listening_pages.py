"""Pages that listen in all the ways that docs/hypermedia.rst names, and list what they
get.

How each way is written lives here, and what it needs published. What it must get stands
in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from datastar_py import ServerSentEventGenerator
from datastar_py.consts import ElementPatchMode
from playwright.sync_api import Page

from .client_packages import CDN, serve_cdn

#: What an event is, as the arguments of ``publish``.
Arguments = Mapping[str, str]


def _text(number: int) -> Arguments:
    return {"data": str(number)}


def _item(number: int) -> Arguments:
    return {"data": f"<li>{number}</li>"}


def _turbo_stream(number: int) -> Arguments:
    item = f"<template><li>{number}</li></template>"
    return {
        "data": f'<turbo-stream action="append" target="seen">{item}</turbo-stream>'
    }


def _datastar(number: int) -> Arguments:
    event = ServerSentEventGenerator.patch_elements(
        f"<li>{number}</li>", selector="#seen", mode=ElementPatchMode.APPEND
    )
    head, *lines = event.rstrip("\n").split("\n")
    data = "\n".join(line.removeprefix("data: ") for line in lines)
    return {"data": data, "type": head.removeprefix("event: ")}


class Way(NamedTuple):
    """A way to listen."""

    #: As the documentation's table calls it.
    name: str
    #: The page, with ``URL`` for the stream's address.
    page: str
    #: An event with a number.
    event: Callable[[int], Arguments]
    #: What the documentation shows of the page.
    shown: Sequence[str] = ()
    #: The address has the page's position in it.
    has_position: bool = False
    #: An expression that is true once the page will never ask again.
    over: str = "false"
    #: A hidden page has no stream.
    pauses: bool = False
    #: A page that was left, and that the browser keeps, has no stream.
    lets_go: bool = False

    def __str__(self) -> str:
        return self.name


#: The lines of JavaScript that put a library onto the module.
_FOR_HTMX_2 = "htmx.createEventSource = url => connect(url);"
_FOR_TURBO = """const stream = connect("URL");
  Turbo.connectStreamSource(stream);"""
_FOR_ALPINE = """connect("URL").onmessage = ({ data: detail }) =>
    dispatchEvent(new CustomEvent("said", { detail }));"""


def _module(body: str) -> str:
    """A script that uses the module."""
    return f"""<script type="module">
  import {{ connect }} from "/stream/sse.js";
  {body}
</script>
"""


def _plain(body: str) -> str:
    """A page without a library, with a script that shows events."""
    return f"""<ul id="seen"></ul>
<script>
  const show = ({{ data }}) => {{
    const item = document.createElement("li");
    item.textContent = data;
    seen.append(item);
  }};
</script>
{body}
"""


_EVENT_SOURCE = """<script>
  source = new EventSource("URL");
  source.onmessage = show;
</script>
"""
_HTMX_2 = f"""
<script src="{CDN}/npm/htmx.org@2.0.11/dist/htmx.min.js"></script>
<script src="{CDN}/npm/htmx-ext-sse@2.2.4/dist/sse.min.js"></script>
<ul id="seen" hx-ext="sse" hx-swap="beforeend" sse-connect="URL" sse-swap="message"
    sse-close="stream-end"></ul>
"""
_HTMX_4 = f"""
<script src="{CDN}/npm/htmx.org@4.0.1/dist/htmx.min.js"></script>
<script src="{CDN}/npm/htmx.org@4.0.1/dist/ext/hx-sse.min.js"></script>
<ul id="seen" hx-swap="beforeend" hx-sse:connect="URL" hx-sse:close="stream-end"></ul>
"""
_TURBO = f"""
<script type="module" src="{CDN}/npm/@hotwired/turbo@8.0.23/dist/turbo.es2017-esm.js">
</script>
<ul id="seen"></ul>
"""
_TURBO_SOURCE = '<turbo-stream-source src="URL"></turbo-stream-source>'
_TURBO_IS_OVER = (
    "document.querySelector('turbo-stream-source').streamSource.readyState === 2"
)
_RETRY_ALWAYS = "{retry: 'always', retryMaxCount: Infinity}"


def _datastar_page(options: str) -> str:
    return f"""
<script type="module"
  src="{CDN}/gh/starfederation/datastar@v1.0.1/bundles/datastar.js"></script>
<script>
  finished = false;
  document.addEventListener("datastar-fetch", event => {{
    finished ||= event.detail.type === "finished";
  }});
</script>
<ul id="seen" data-init="@get('URL'{options})"></ul>
"""


_ALPINE = f"""
<script defer src="{CDN}/npm/alpinejs@3.17.5/dist/cdn.min.js"></script>
<ul id="seen" x-data="{{ numbers: [] }}" @said.window="numbers.push($event.detail)">
  <template x-for="number in numbers"><li x-text="number"></li></template>
</ul>
"""
_VUE = f"""
<script src="{CDN}/npm/vue@3.5.45/dist/vue.global.prod.js"></script>
<script src="{CDN}/npm/@vueuse/shared@15.0.0/dist/index.iife.min.js"></script>
<script src="{CDN}/npm/@vueuse/core@15.0.0/dist/index.iife.min.js"></script>
<ul id="seen"><li v-for="number in numbers" v-text="number"></li></ul>
<script>
  const numbers = Vue.reactive([]);
  const source = VueUse.useEventSource("URL", [], {{ autoReconnect: true }});
  Vue.watch(source.data, number => numbers.push(number));
  Vue.createApp({{ setup: () => ({{ numbers }}) }}).mount("#seen");
</script>
"""

#: What has a page with VueUse stay away after the end: what stands in the page, and
#: what must stand there instead.
VUE_CLOSES = (
    """"URL", [], { autoReconnect: true });
""",
    """"URL", ["message", "stream-end"], { autoReconnect: true });
  Vue.watch(source.event, type => type === "stream-end" && source.close());
""",
)

WAYS = [
    Way(
        "``EventSource``",
        _plain(_EVENT_SOURCE),
        _text,
        over="source.readyState === EventSource.CLOSED",
    ),
    Way(
        "``sse.js``",
        _plain(_module('connect("URL").onmessage = show;')),
        _text,
        lets_go=True,
    ),
    Way(
        "htmx 2",
        _HTMX_2,
        _item,
        shown=['sse-close="stream-end"', 'hx-ext="sse"'],
    ),
    Way("htmx 2 with ``sse_url``", _HTMX_2, _item, has_position=True),
    Way(
        "htmx 2 on ``sse.js``",
        _HTMX_2 + _module(_FOR_HTMX_2),
        _item,
        shown=[_FOR_HTMX_2],
        has_position=True,
        lets_go=True,
    ),
    Way(
        "htmx 4",
        _HTMX_4,
        _item,
        shown=['hx-sse:close="stream-end"'],
        pauses=True,
        lets_go=True,
    ),
    Way("Turbo", _TURBO + _TURBO_SOURCE, _turbo_stream, over=_TURBO_IS_OVER),
    Way(
        "Turbo on ``sse.js``",
        _TURBO + _module(_FOR_TURBO),
        _turbo_stream,
        shown=["Turbo.connectStreamSource(stream);"],
        lets_go=True,
    ),
    Way(
        "Datastar",
        _datastar_page(""),
        _datastar,
        over="finished",
        pauses=True,
        lets_go=True,
    ),
    Way(
        "Datastar with ``retry: 'always'``",
        _datastar_page(f", {_RETRY_ALWAYS}"),
        _datastar,
        shown=[_RETRY_ALWAYS],
        over="finished",
        pauses=True,
        lets_go=True,
    ),
    Way(
        "Alpine on ``sse.js``",
        _ALPINE + _module(_FOR_ALPINE),
        _text,
        shown=["dispatchEvent(new CustomEvent("],
        lets_go=True,
    ),
    Way("VueUse", _VUE, _text, shown=["{ autoReconnect: true }"]),
]


def listen(page: Page, way: Way, origin: str, url: str) -> None:
    """Have a page listen to a stream."""
    serve_cdn(page)
    html = f"<!doctype html><link rel=icon href=data:>{way.page.replace('URL', url)}"
    page.route(
        f"{origin}/listening",
        lambda route: route.fulfill(body=html, content_type="text/html"),
    )
    page.goto(f"{origin}/listening")


def numbers(page: Page) -> list[int]:
    """What a page has listed."""
    texts = page.locator("#seen li").all_text_contents()
    return [int(text) for text in texts]
