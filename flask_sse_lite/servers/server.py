"""What must be known of a WSGI server before its connections can be taken over.

Here lives what all servers have in common, and how a server refuses. What is true of
one server only never stands here: each server has a module beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, cast

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The refusal where a server has sent other bytes than we gave it.
CHANGED = "a middleware reads ahead, or changes the body"

#: Requests that a worker should serve before it is replaced. Each stream is a request,
#: and after a replacement all streams come back and are counted again. A thousand
#: streams then use up a tenth of the next worker's life.
ENOUGH_REQUESTS = 10_000

#: Seconds that a stopped server inside a process gives its requests, where the server
#: does not say how many. This is cheroot's default.
DEFAULT_GRACE = 5.0


class Refusal(Exception):
    """Why a stream stays with the server, in a few words.

    ``is_remediable`` tells whether an operator could do something about it.
    """

    def __init__(self, reason: str, *, is_remediable: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_remediable = is_remediable


class NothingSent(Refusal):
    """The next item is asked for before the server has sent the head. So a middleware
    or the server collects the body, or holds it back. Bytes that we sent past the
    server now would come before the head, which is no HTTP.

    :param reader: the code that asks for the item, where that is known.
    """

    def __init__(self, reader: str = "") -> None:
        super().__init__(
            "nothing was sent when the next item was asked for, so that clients get "
            "their events late or never: who asks collects the body, or holds it back. "
            f"Exempt event streams from it{f': {reader}' if reader else ''}",
            is_remediable=True,
        )


class Server:
    """The WSGI server of one response.

    :param environ: the request's environ.
    :param write: what ``start_response`` returned.
    """

    name: ClassVar[str]
    #: The module and the name of the class whose method ``write`` is.
    owner: ClassVar[tuple[str, str]]
    #: The modules in which the server iterates a response.
    home: ClassVar[tuple[str, ...]]
    #: The local variable that holds the response there; empty where it has none.
    iterated: ClassVar[str] = ""
    #: Whether this server's sockets can be taken over.
    lends_sockets: ClassVar[bool] = True

    def __init__(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        self.environ = environ
        self.write = write
        self.behind: Any = getattr(write, "__self__", None)
        #: The name of what hides the server's ``write``. Empty where nothing does;
        #: otherwise the server was found by its frame.
        self.hidden_by = ""

    @classmethod
    def write_in(cls, frame: FrameType) -> Callable[..., Any] | None:
        """The server's ``write``, if the frame is one in which this server answers a
        request."""
        known = frame.f_locals
        for holder in ("resp", "self"):
            write = getattr(known.get(holder), "write", None)
            if write and cls.is_behind(write):
                return cast("Callable[..., Any]", write)
        return None

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        """Whether a ``write`` belongs to this server."""
        behind = type(getattr(write, "__self__", None))
        return any((c.__module__, c.__name__) == cls.owner for c in behind.__mro__)

    def body(self, frame: FrameType) -> object:
        """The object that the server iterates; None where that is not known.

        :param frame: the server's frame that iterates it.
        """
        return frame.f_locals.get(self.iterated)

    def close_after(self) -> None:
        """Have the head say that the connection closes after this response. Nothing
        happens under a server that cannot be told so."""

    @property
    def is_sure(self) -> bool:
        """Whether ``check_sent`` knows what was sent. Where it does not, the code that
        iterates the response is checked too, even under ``SSE_HANDOFF = True``."""
        return True

    def check(self, sent: int) -> None:
        """Make sure that the server has sent the head and, of the body, exactly the
        bytes that we gave.

        :param sent: how many bytes of the body we gave.
        :raises Refusal: when it has not, or when that cannot be known.
        """
        self.check_headers()
        self.check_sent(sent)

    def check_headers(self) -> None:
        """The part of ``check`` that can be known before anything is sent."""
        for name, _ in self.headers():
            if name.lower() in ("content-encoding", b"content-encoding"):
                raise Refusal("the body has a Content-Encoding", is_remediable=True)

    def check_sent(self, sent: int) -> None:
        """The part of ``check`` that differs between servers."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send a part of the body. Another thread than the request's calls this, while
        the request's own thread waits for the application."""
        self.write(data)

    def note_sent(self, size: int, framed: int) -> None:
        """Add bytes that were sent past the server to its own count, which its access
        log shows.

        :param size: bytes of the body.
        :param framed: the same bytes with their framing.
        """

    def headers(self) -> Iterable[tuple[Any, Any]]:
        """The head's fields, as the server sends them."""
        return ()

    def program(self) -> object | None:
        """The object in this process that listens, and that can be stopped while the
        process goes on. None where there is none."""
        return None

    @classmethod
    def has_stopped(cls, program: Any) -> bool:
        """Whether a program was stopped."""
        return False

    @classmethod
    def grace(cls, program: Any) -> float:
        """Seconds that a program gives its requests when it is stopped."""
        return DEFAULT_GRACE

    def socket(self) -> Any:
        """The connection's socket, or its descriptor."""
        raise NotImplementedError

    def is_chunked(self) -> bool:
        """Whether the body goes in chunks, as the head that was sent says."""
        raise NotImplementedError


def too_few_requests(option: str, limit: int) -> str:
    """The warning about an option by which a server replaces its workers."""
    return (
        f"{option} is {limit}. Every event stream counts as a request, and when a "
        "worker is replaced, all of its streams end, come back and count again. Set it "
        f"to 0, or to many times the number of streams ({ENOUGH_REQUESTS} at least)."
    )


def name_of(function: object) -> str:
    """The module and the name of a function, or of a callable object's class."""
    thing = function if hasattr(function, "__qualname__") else type(function)
    return f"{thing.__module__}.{thing.__qualname__}"
