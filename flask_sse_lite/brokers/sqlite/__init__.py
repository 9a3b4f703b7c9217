"""The SQLite broker: one file, for all processes of one machine.

Here lives how its URL is read. The store itself lives in store.py.
"""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from ...errors import InvalidValue
from ...settings import Settings
from ..options import read_options
from .connection import Wanted
from .life import FULL, NORMAL
from .store import SqliteStore


def connect(settings: Settings, folder: str | None) -> SqliteStore:
    parts = urlsplit(settings.url)
    options = read_options(settings, parts.query)
    synchronous = options.others.pop("synchronous", None)
    if synchronous is None and options.retention:
        synchronous = NORMAL
    is_known = synchronous in (None, NORMAL, FULL)
    path = unquote(parts.path.removeprefix("/"))
    is_path = path not in ("", ":memory:") and "\0" not in path
    if parts.netloc or parts.fragment or options.others or not (is_path and is_known):
        raise InvalidValue(
            f"{settings.url_key} is to be sqlite:///name.db (in the application's "
            "instance folder) or sqlite:////an/absolute/path.db, and takes the options "
            "history, age, prefix and synchronous (normal or full)"
        )
    is_relative = not os.path.isabs(path)
    if is_relative and folder is None:
        raise InvalidValue(
            f"{settings.url_key} has a relative path, which means the instance folder "
            "of an application, and there is none: make it absolute (four slashes)"
        )
    wanted = Wanted(
        path=os.path.join(folder or "", path),
        prefix=options.prefix,
        retention=options.retention,
        history_bytes=options.history_bytes,
        makes_folder=is_relative,
        synchronous=synchronous,
    )
    return SqliteStore(wanted, settings.broker_timeout)
