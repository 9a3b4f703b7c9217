"""Discretion: which words of a report are secret, and are replaced.

A report is pasted into chats and tickets. Here lives which words of a text are kept
back: a password before a host, and the values of parameters whose names say that they
are secret. A module that makes a finding can quote an address as it is.
"""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?<=://)[^/\s?#'\"]*@")

#: The name of a parameter, its ``=`` and its value. A redirect to a login often carries
#: a whole address as a parameter, in which ``?``, ``&`` and ``=`` are written as
#: ``%3F``, ``%26`` and ``%3D``.
_PARAMETER = re.compile(
    r"(?P<name>(?:[?&;]|%3F|%26)[\w.-]*"
    r"(?:token|secret|passw|key|sig|auth|session|jwt|code|ticket)[\w.-]*(?:=|%3D))"
    r"(?:(?!%26|%23)[^&;#\s'\",)])+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text that an operator can show to others: each secret in it is an ellipsis."""
    return _PARAMETER.sub(r"\g<name>…", _PASSWORD.sub("…@", text))
