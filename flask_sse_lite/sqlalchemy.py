"""Publishing what a transaction of SQLAlchemy's has done: after its commit, so that a
client can read it from the database by then, and never after a rollback.

Here lives ``publish_after_commit`` alone. It works with SQLAlchemy's own sessions,
whatever makes them. No other module imports this one, so the package works without
SQLAlchemy.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from sqlalchemy import event as session_events
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from werkzeug.local import LocalProxy

from .application import current_channels
from .channels import DEFAULT_CHANNEL, Channels
from .errors import InvalidType, InvalidValue
from .event import Event
from .log_messages import NOT_PUBLISHED
from .names import Name

#: The key of ``session.info`` under which a session keeps what it is to publish.
_KEY = "flask_sse_lite"


def publish_after_commit(
    session: Session | scoped_session[Any],
    data: Any,
    type: Name | None = None,
    channel: Name | Iterable[Name] = DEFAULT_CHANNEL,
) -> None:
    """Publish an event when the session's transaction is committed, and only then::

        db.session.add(order)
        publish_after_commit(db.session, {"order": "new"}, channel="orders")
        db.session.commit()  # Now it is published.

    Inside a savepoint: if the savepoint is rolled back, the event is never published;
    if it is released, the event waits for the commit of the transaction around it. If
    publishing fails after the commit, the failure is logged, and the transaction
    stands.

    The data is encoded now, so later changes of it are not published.

    :param session: a ``Session``, or a ``scoped_session`` such as Flask-SQLAlchemy's
        ``db.session``. Of an ``AsyncSession`` give its ``sync_session``.
    :param data: see ``SSE.publish``; so are ``type`` and ``channel``.
    :raises InvalidValue: when the event cannot be sent, or when the session has no
        transaction and does not begin one by itself.
    :raises NoApplication: outside an application context, when it is unclear which
        application is meant.
    """
    own: Any = session() if isinstance(session, scoped_session) else session
    if isinstance(own, LocalProxy):
        own = own._get_current_object()
    if not isinstance(own, Session):
        raise InvalidType(
            "publish_after_commit takes a Session or a scoped_session of SQLAlchemy's, "
            f"not {own.__class__.__name__!r} (of an AsyncSession: its sync_session)"
        )
    channels = current_channels()
    names, event = channels.prepare(data, type, None, None, channel)
    _Outbox.of(own).put(_Waiting(channels, names, event, _transaction(own)))


def _transaction(session: Session) -> SessionTransaction:
    """The session's innermost transaction or savepoint. A session with autobegin begins
    one here, as its next statement would do."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None and not session.autobegin:
        raise InvalidValue(
            "The session has no transaction, whose commit an event could wait for: "
            "call session.begin() first"
        )
    return transaction or session.begin()


class _Waiting:
    """An event, and the transaction or savepoint whose commit it waits for."""

    def __init__(
        self,
        channels: Channels,
        names: tuple[str, ...],
        event: Event,
        transaction: SessionTransaction,
    ) -> None:
        self.transaction = transaction
        self._channels = channels
        self._names = names
        self._event = event

    def publish(self) -> None:
        try:
            self._channels.publish(self._event, None, None, None, self._names)
        except Exception:
            # The transaction is committed: no error must reach the code that did so.
            NOT_PUBLISHED.log(self._event, error=True, channels=self._names)


class _Outbox:
    """The events that one session will publish. Only the thread that uses the session
    calls this."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)
        self._waiting: list[_Waiting] = []
        session_events.listen(session, "after_commit", self._go_on)
        session_events.listen(session, "after_transaction_end", self._forget)

    @classmethod
    def of(cls, session: Session) -> _Outbox:
        outbox: _Outbox | None = session.info.get(_KEY)
        if outbox is None or outbox._session() is not session:
            # A session can be made with a copy of another session's info.
            outbox = session.info[_KEY] = cls(session)
        return outbox

    def put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)

    def _go_on(self, session: Session) -> None:
        """Called when a transaction was committed or a savepoint was released."""
        if savepoint := session.get_nested_transaction():
            around = savepoint.parent
            for each in self._waiting:
                if each.transaction is savepoint and around:
                    each.transaction = around
            return
        ready, self._waiting = self._waiting, []
        for each in ready:
            each.publish()

    def _forget(self, session: Session, transaction: SessionTransaction) -> None:
        """Called when a transaction or a savepoint is over. The events that still wait
        for it were rolled back: by ``rollback()``, or because the session was closed,
        of which SQLAlchemy tells no listener to rollbacks."""
        self._waiting = [w for w in self._waiting if w.transaction is not transaction]
