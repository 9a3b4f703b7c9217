"""Publishing what a transaction of SQLAlchemy's has done: after its commit, so that
whoever is told can read it, and not after a rollback.

Here lives that alone. It works with SQLAlchemy's own sessions, whoever makes them. No
other module imports this one, so that SQLAlchemy need not be there.
"""

from __future__ import annotations

import logging
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
from .wording import Name

#: The key of ``session.info`` under which a session keeps what it is to publish.
_KEY = "flask_sse_lite"

logger = logging.getLogger("flask_sse_lite")


def publish_after_commit(
    session: Session | scoped_session[Any],
    data: Any,
    type: Name | None = None,
    channel: Name | Iterable[Name] = DEFAULT_CHANNEL,
) -> None:
    """Publish an event if and when what a session does now is committed::

        db.session.add(order)
        publish_after_commit(db.session, {"order": "new"}, channel="orders")
        db.session.commit()  # Now it is published.

    What was done in a savepoint that is rolled back is never published, and what was
    done in one that is released waits for the transaction around it. What cannot be
    published after the commit is logged: the transaction stands.

    The data is taken as it is now: after the commit, nobody could ask for it.

    :param session: a ``Session``, or a ``scoped_session`` such as Flask-SQLAlchemy's
        ``db.session``. Of an ``AsyncSession`` give its ``sync_session``.
    :param data: see ``SSE.publish``; so are ``type`` and ``channel``.
    :raises InvalidValue: when it cannot be sent, or where the session has not begun a
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
    """The innermost transaction or savepoint; the session begins one where it would do
    so at its next statement."""
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
            # The transaction stands, whatever comes of this.
            logger.exception("Not published after a commit: %r", self._event)


class _Outbox:
    """What one session is to publish. It belongs to whom the session belongs to."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)
        self._waiting: list[_Waiting] = []
        session_events.listen(session, "after_commit", self._go_on)
        session_events.listen(session, "after_transaction_end", self._forget)

    @classmethod
    def of(cls, session: Session) -> _Outbox:
        outbox: _Outbox | None = session.info.get(_KEY)
        if outbox is None or outbox._session() is not session:
            # A session can be made with a copy of another's info.
            outbox = session.info[_KEY] = cls(session)
        return outbox

    def put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)

    def _go_on(self, session: Session) -> None:
        """A transaction is committed, or a savepoint released."""
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
        """A transaction or a savepoint is over. What still waits for it was rolled
        back: by ``rollback()``, or because the session was closed, which no listener to
        rollbacks is told of."""
        self._waiting = [w for w in self._waiting if w.transaction is not transaction]
