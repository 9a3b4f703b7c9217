"""What is to be known of a WSGI server, so that its connections can be taken over.

Here lives what all servers have in common, and how one says no. Each server is a module
of its own beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Why a server's count of what it sent may differ from ours.
CHANGED = "a middleware reads ahead, or changes the body"

#: Requests that a worker should serve before it is replaced. A stream is one of them,
#: and behind each replacement all streams come back and are counted again: with a
#: thousand of them, that is then a tenth of a worker's life.
ENOUGH_REQUESTS = 10_000

#: Seconds that a server inside a process leaves to its requests when it is stopped,
#: where it does not say: as many as cheroot does.
DEFAULT_GRACE = 5.0


#: Why a stream stays with its server, in one word that never changes: dashboards and
#: alerts are built on these. docs/deployment.rst says what each means.
Reason = Literal[
    "switched-off",
    "unsupported-system",
    "unsupported-server",
    "http-version",
    "tls",
    "forking-server",
    "no-threads",
    "content-encoding",
    "nothing-sent",
    "body-changed",
    "body-taken",
    "middleware-iterates",
    "middleware-hides",
    "no-descriptors",
    "connection-closed",
]


class Refusal(Exception):
    """Why a stream stays with the server.

    :param reason: a few words for the operator. They can change from one version to
        the next.
    :param code: one word for programs. It never changes.
    :param is_remediable: whether an operator could do something about it.
    """

    def __init__(
        self, reason: str, code: Reason, *, is_remediable: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.is_remediable = is_remediable


class NothingSent(Refusal):
    """The next item is asked for, and the server has not even sent the head. Whoever
    asks collects the body, or holds it back: bytes that are sent past the server now
    would be no HTTP.

    :param reader: who asks, as far as that is known.
    """

    def __init__(self, reader: str = "") -> None:
        super().__init__(
            "nothing was sent when the next item was asked for, so that clients get "
            "their events late or never: who asks collects the body, or holds it back. "
            f"Exempt event streams from it{f': {reader}' if reader else ''}",
            "nothing-sent",
            is_remediable=True,
        )


class Server:
    """One WSGI server, as an application's response meets it.

    :param environ: the request's.
    :param write: what ``start_response`` returned.
    """

    name: ClassVar[str]
    #: Where the class of the object behind ``write`` is defined, and its name.
    owner: ClassVar[tuple[str, str]]
    #: Where its own code lies that iterates a response, and what it calls that there.
    home: ClassVar[tuple[str, ...]]
    iterated: ClassVar[str] = ""
    #: Whether it has sockets that can be taken over.
    lends_sockets: ClassVar[bool] = True

    def __init__(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        self.environ = environ
        self.write = write
        self.behind: Any = getattr(write, "__self__", None)
        #: What keeps the server's ``write`` to itself, if anything does: then it was
        #: found by its frame.
        self.hidden_by = ""

    @classmethod
    def write_in(cls, frame: FrameType) -> Callable[..., Any] | None:
        """The ``write`` of such a server, if a frame is of its code that answers a
        request."""
        known = frame.f_locals
        for holder in ("resp", "self"):
            write = getattr(known.get(holder), "write", None)
            if write and cls.is_behind(write):
                return cast("Callable[..., Any]", write)
        return None

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        """Whether this ``write`` is of such a server."""
        behind = type(getattr(write, "__self__", None))
        return any((c.__module__, c.__name__) == cls.owner for c in behind.__mro__)

    def body(self, frame: FrameType) -> object:
        """What the server iterates, as far as that is known.

        :param frame: its own, which does.
        """
        return frame.f_locals.get(self.iterated)

    def close_after(self) -> None:
        """Have the head say that the connection closes after this response, where
        the server can be told so."""

    @property
    def is_sure(self) -> bool:
        """Whether ``check_sent`` knows what was sent. Where it does not, who asks for
        the items is looked at, whatever an operator vouches for."""
        return True

    def check(self, sent: int) -> None:
        """Make sure that the head is sent, and of the body just what we gave.

        :param sent: bytes of the body that we gave.
        :raises Refusal: when it is otherwise, or cannot be known.
        """
        self.check_headers()
        self.check_sent(sent)

    def check_headers(self) -> None:
        """Of ``check``, what can be known before anything is sent."""
        for name, _ in self.headers():
            if name.lower() in ("content-encoding", b"content-encoding"):
                raise Refusal(
                    "the body has a Content-Encoding",
                    "content-encoding",
                    is_remediable=True,
                )

    def check_sent(self, sent: int) -> None:
        """Of ``check``, what differs between servers."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send some of the body from another thread than the request's, which waits
        for the application."""
        self.write(data)

    def note_sent(self, size: int, framed: int) -> None:
        """So many bytes of the body went past the server, and so many with their
        framing: where it counts them for its access log, have it count these."""

    def headers(self) -> Iterable[tuple[Any, Any]]:
        """The head's fields as they are sent."""
        return ()

    def program(self) -> object | None:
        """The object in this process that listens and can be stopped while the process
        goes on; None where there is none."""
        return None

    @classmethod
    def has_stopped(cls, program: Any) -> bool:
        """Whether such an object was stopped."""
        return False

    @classmethod
    def grace(cls, program: Any) -> float:
        """Seconds that it leaves to its requests when it is stopped."""
        return DEFAULT_GRACE

    def socket(self) -> Any:
        """The connection's socket, or its descriptor."""
        raise NotImplementedError

    def is_chunked(self) -> bool:
        """Whether the body goes in chunks, as the head that was sent says."""
        raise NotImplementedError


def too_few_requests(option: str, limit: int) -> str:
    """What to say of an option by which a server replaces its workers."""
    return (
        f"{option} is {limit}. Every event stream counts as a request, and when a "
        "worker is replaced, all of its streams end, come back and count again. Set it "
        f"to 0, or to many times the number of streams ({ENOUGH_REQUESTS} at least)."
    )


def name_of(function: object) -> str:
    """What a function or a callable object is called, and where it is defined."""
    thing = function if hasattr(function, "__qualname__") else type(function)
    return f"{thing.__module__}.{thing.__qualname__}"
