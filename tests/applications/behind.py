"""The channels behind middleware of many kinds. The request's parameter ``behind``
names the kind. flask-compress acts whenever the request accepts an encoding."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from flask_compress import Compress
from werkzeug.middleware.profiler import ProfilerMiddleware

from flask_sse_lite import EventStream

from .channels import app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    Items = Iterable[bytes]

app.config["COMPRESS_MIMETYPES"] = ["text/event-stream"]
app.config["COMPRESS_ALGORITHM_STREAMING"] = ["gzip"]
Compress(app)


class Body:
    """A body that a middleware changes. Closing it closes the original."""

    def __init__(self, items: Items, change: Callable[[Items], Items]) -> None:
        self._items = items
        self._changed = iter(change(items))

    def __iter__(self) -> Iterator[bytes]:
        return self._changed

    def close(self) -> None:
        if hasattr(self._items, "close"):
            self._items.close()


def pass_through(items: Items) -> Items:
    yield from items


def peek(items: Items) -> Items:
    """Take the first item before the server asks for it, and pass it on as the
    first."""
    iterator = iter(items)
    return itertools.chain([next(iterator)], iterator)


def stay_ahead(items: Items) -> Items:
    """Pass on an item only when the next one has come."""
    return (one for one, _ in itertools.pairwise(itertools.chain(items, [b""])))


def shout(items: Items) -> Items:
    """Change every item, but no item's length."""
    for item in items:
        yield item.upper()


def shout_unseen(items: Items) -> Items:
    """As ``shout``, by a builtin that has no frame of its own."""
    return map(bytes.upper, items)


def edit(items: Items) -> Items:
    """Change a few items, but no item's length."""
    for item in items:
        yield item.replace(b"hello", b"HOWDY")


def add(items: Items) -> Items:
    """Change a few items, and their length."""
    for item in items:
        yield item.replace(b"data: ", b"data: they say: ")


def compress(items: Items) -> Items:
    compressor = zlib.compressobj(wbits=31)
    for item in items:
        yield compressor.compress(item) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()


CHANGES: dict[str, Callable[[Items], Items]] = {
    change.__name__: change
    for change in (
        pass_through,
        peek,
        stay_ahead,
        shout,
        shout_unseen,
        edit,
        add,
        compress,
    )
}


def hides_write(application: WSGIApplication) -> WSGIApplication:
    """A middleware that hides the server's ``write``, and changes nothing."""

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Items:
        def start_hidden(*args: Any) -> Callable[[bytes], object]:
            write = start_response(*args)

            def hidden_write(data: bytes) -> object:
                return write(data)

            return hidden_write

        return application(environ, start_hidden)

    return middleware


def collects(application: WSGIApplication) -> WSGIApplication:
    """A middleware that collects the whole body before it starts the response, as
    werkzeug's profiler does."""

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Items:
        answer: list[Any] = []
        body: list[bytes] = []

        def begin(*args: Any) -> Callable[[bytes], object]:
            answer[:] = args
            return body.append

        items = Body(application(environ, begin), pass_through)
        body.extend(items)
        items.close()
        start_response(*answer)
        return [b"".join(body)]

    return middleware


def collects_late(application: WSGIApplication) -> WSGIApplication:
    """A middleware that starts the response at once, and collects the whole body before
    it returns."""

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Items:
        items = application(environ, start_response)
        return Body([b"".join(items)], lambda whole: whole)

    return middleware


def collects_lazily(application: WSGIApplication) -> WSGIApplication:
    """A middleware that collects the whole body when the server asks for the first
    item."""

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Items:
        items = application(environ, start_response)

        def join(items: Items) -> Items:
            yield b"".join(items)

        return Body(items, join)

    return middleware


def delays_head(application: WSGIApplication) -> WSGIApplication:
    """A middleware that starts the response when the first item has come."""

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Items:
        answer: list[Any] = []

        def begin(*args: Any) -> Callable[[bytes], object]:
            answer[:] = args
            return lambda data: None

        items = application(environ, begin)

        def start(items: Items) -> Items:
            for number, item in enumerate(items):
                if number == 0:
                    start_response(*answer)
                yield item

        return Body(items, start)

    return middleware


def profiler(application: WSGIApplication) -> WSGIApplication:
    middleware: WSGIApplication = ProfilerMiddleware(application, stream=io.StringIO())
    return middleware


AROUND = {
    around.__name__: around
    for around in (
        hides_write,
        collects,
        collects_late,
        collects_lazily,
        delays_head,
        profiler,
    )
}


@app.get("/words")
def words() -> EventStream:
    return EventStream(word for word in ("one", "two", "three"))


def behind(application: WSGIApplication) -> WSGIApplication:
    around = {name: wrap(application) for name, wrap in AROUND.items()}

    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Items:
        [name] = parse_qs(environ["QUERY_STRING"]).get("behind", [""])
        if name in around:
            return around[name](environ, start_response)
        if name not in CHANGES:
            return application(environ, start_response)

        def start(status: str, headers: Any, *args: Any) -> Callable[[bytes], object]:
            if name == "compress":
                headers = [*headers, ("Content-Encoding", "gzip")]
            return start_response(status, headers, *args)

        items = application(environ, start)
        return Body(items, CHANGES[name])

    return middleware


app.wsgi_app = behind(app.wsgi_app)  # type: ignore[assignment, method-assign]
