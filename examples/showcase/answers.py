"""Answers: a question is asked, and a small model of words speaks, token by token.

An answer has two channels of its own: one for its tokens, and one for the question and
for how the generator ended. Their names hold 128 random bits. To read or stop an
answer, a client needs a ticket for it, which is signed.

A ticket also says where the log stood before the answer. A client that brings only the
ticket begins there, and gets the whole answer.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from typing import NamedTuple

from flask import current_app
from itsdangerous import BadSignature, URLSafeSerializer
from markov import speech

from flask_sse_lite import sse


class Answer(NamedTuple):
    """What a ticket says of an answer."""

    name: str
    since: str

    @property
    def said(self) -> str:
        """The channel of its tokens."""
        return f"answer.{self.name}"

    @property
    def told(self) -> str:
        """The channel of the question, and of how the generator ended."""
        return f"{self.said}.told"


def begin(question: str) -> str:
    """Have a question answered.

    :returns: the ticket for its answer.
    """
    answer = Answer(secrets.token_urlsafe(16), sse.position())
    asked = {"text": question, "time": time.time(), "worker": os.getpid()}
    sse.publish(asked, type="question", channel=answer.told)
    # This response would stream the answer to the client that asked. It is dropped: the
    # page opens the stream by the ticket, as a second tab does.
    sse.run(speak(question, answer), channel=answer.said, type="token")
    return _signer().dumps(answer)


def speak(question: str, answer: Answer) -> Iterator[dict[str, object]]:
    """The tokens of an answer. At the end, how many there were is published."""
    made = 0
    end = "closed"
    try:
        for token in speech(question, current_app.config["ANSWER_SENTENCES"]):
            time.sleep(current_app.config["ANSWER_PACE"])
            made += 1
            yield {"text": token, "time": time.time()}
        end = "finished"
    finally:
        # The generator is closed by "stop", when nobody has listened for half a minute,
        # and when the server stops.
        told = {"end": end, "made": made, "time": time.time()}
        sse.publish(told, type="generator", channel=answer.told)
        sse.close(answer.told)


def find(ticket: str) -> Answer | None:
    """The answer that a ticket of ours is for."""
    try:
        return Answer(*_signer().loads(ticket))
    except BadSignature:
        return None


def _signer() -> URLSafeSerializer:
    assert current_app.secret_key
    return URLSafeSerializer(current_app.secret_key, salt="answer")
