"""Stores: whether the broker can be reached, and how its store is set up.

Here lives what is concluded from the facts that a store tells of itself. How a store is
asked for them lives in its own module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ..channels import Channels
from ..errors import SSEError
from .report import Report

#: The system's table of what is mounted where.
MOUNTS = "/proc/self/mounts"

#: File systems that a network is behind. SQLite's locks, and the memory that its
#: processes share, work on none of them.
OF_NETWORKS = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|lustre|beegfs|ocfs2|gfs2?|davfs|"
    r"fuse\.(?!fuseblk)[\w.-]+|virtiofs|vboxsf|prl_fs"
)

#: The share of Redis's memory that can be used before that is a complaint.
FULL = 0.9

#: The oldest Redis that works.
OLDEST_REDIS = (6, 2)


def examine(channels: Channels, report: Report) -> None:
    """Ask the broker, and judge what its store says."""
    broker = channels.broker
    if not broker.is_shared:
        report.ok("broker", "SSE_URL is memory://: events stay in one process.")
        return
    store = getattr(broker, "store", None)
    path = getattr(store, "path", None)
    if isinstance(path, str):
        _judge_folder(path, report)
        _judge_rights(path, report)
        if report.says("sqlite-rights", "wrong"):
            return
        if not os.path.exists(path):
            # Made by this user, the file could be one that the server cannot open.
            report.unknown("broker", f"The server has not made {path} yet.")
            return
    try:
        broker.position()
        facts = store.facts() if store is not None else {}
    except SSEError as error:
        report.wrong("broker", "The broker cannot be reached.", f"{error}.")
        return
    report.ok("broker", "The broker answers.")
    if "redis_version" in facts:
        _judge_redis(facts, report)


# SQLite


def _judge_folder(path: str, report: Report) -> None:
    kind = file_system(path)
    if kind is None:
        report.unknown("sqlite-folder", f"{MOUNTS} does not say where {path} lies.")
    elif OF_NETWORKS.fullmatch(kind):
        report.wrong(
            "sqlite-folder",
            f"The SQLite file {path} lies on a network's file system ({kind}). There "
            "SQLite's locks fail, and events are lost or the file breaks.",
            f"{MOUNTS} says so.",
        )
    else:
        report.ok("sqlite-folder", f"The SQLite file lies on a local disk ({kind}).")


def file_system(path: str) -> str | None:
    """The kind of the file system that a path lies on; None where nobody says it."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="replace") as table:
            lines = [line.split() for line in table]
    except OSError:
        return None
    path = os.path.realpath(path)
    best, kind = "", None
    for fields in lines:
        if len(fields) < 3:
            continue
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[1])
        is_in = path == point or path.startswith(point.rstrip("/") + "/")
        if is_in and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _judge_rights(path: str, report: Report) -> None:
    folder = os.path.dirname(path)
    if problem := _problem_of(path, folder):
        report.wrong("sqlite-rights", problem, f"This user is {_user()}.")
        return
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        report.ok("sqlite-rights", "The file does not exist yet, and can be made.")
        return
    if mode & 0o077:
        report.warning(
            "sqlite-rights",
            f"Other users can read or write the SQLite file {path}.",
            f"Its mode is {mode & 0o777:o}.",
        )
    else:
        report.ok("sqlite-rights", "Only its owner can use the file.")


def _problem_of(path: str, folder: str) -> str:
    """Why the file cannot be used; empty where it can."""
    if os.path.isdir(path):
        return f"{path} is a folder, and no file."
    if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
        return f"The SQLite file {path} cannot be read and written."
    if os.path.isdir(folder):
        if not os.access(folder, os.W_OK | os.X_OK):
            return (
                f"The folder {folder} cannot be written, and SQLite makes files beside "
                "its own."
            )
        return ""
    if os.path.exists(folder):
        return f"{folder} is a file, and no folder."
    parent = folder
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"The folder {folder} does not exist, and cannot be made in {parent}."
    return ""


def _user() -> str:
    return f"number {os.geteuid()}" if hasattr(os, "geteuid") else "unknown"


# Redis


def _judge_redis(facts: Mapping[str, str], report: Report) -> None:
    _judge_release(facts, report)
    _judge_policy(facts, report)
    _judge_persistence(facts, report)
    _judge_memory(facts, report)


def _judge_release(facts: Mapping[str, str], report: Report) -> None:
    numbers = re.findall(r"\d+", facts["redis_version"])[:2]
    if tuple(map(int, numbers)) < OLDEST_REDIS:
        report.wrong(
            "broker",
            f"Redis is {facts['redis_version']}, and must be "
            f"{'.'.join(map(str, OLDEST_REDIS))} or newer.",
            "Redis says so.",
        )


def _judge_policy(facts: Mapping[str, str], report: Report) -> None:
    policy = facts.get("maxmemory_policy")
    if policy is None:
        report.unknown("redis-policy", "Redis does not tell its maxmemory-policy.")
    elif policy != "noeviction":
        report.wrong(
            "redis-policy",
            f"Redis has the maxmemory-policy {policy}: when it is full, it deletes "
            "keys that hold events, runs and positions.",
            "Redis says so.",
        )
    else:
        report.ok("redis-policy", "A full Redis refuses events, and deletes none.")


def _judge_persistence(facts: Mapping[str, str], report: Report) -> None:
    save, is_appending = facts.get("save"), facts.get("aof_enabled")
    if is_appending == "1":
        report.ok("redis-persistence", "Redis appends each event to a file.")
    elif is_appending is None or save is None:
        report.unknown(
            "redis-persistence", "Redis does not tell how it keeps its data."
        )
    elif save:
        report.ok(
            "redis-persistence",
            f"Redis takes snapshots ({save}): what came after the last is lost when it "
            "ends.",
        )
    else:
        report.warning(
            "redis-persistence",
            "Redis keeps nothing: when it is started again, all events are lost, and "
            "every client gets stream-gap.",
            "appendonly is no, and save is empty.",
        )


def _judge_memory(facts: Mapping[str, str], report: Report) -> None:
    most, used = int(facts.get("maxmemory") or 0), int(facts.get("used_memory") or 0)
    if most and used > FULL * most:
        report.warning(
            "redis-memory",
            f"Redis uses {used} of {most} bytes. When it is full, a publish fails.",
            "Redis says so.",
        )
    else:
        report.ok("redis-memory", "Redis has memory left.")
