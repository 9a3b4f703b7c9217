"""The statements by which the SQLite broker uses its file.

Here live the tables, and the statements, each by the name of its purpose. When a
statement is used, and what follows from its answer, is unknown here.

Processes of several releases can use one file at the same time. A later release can add
tables, and columns that have a default. It must remove nothing, and it must not add a
column to ``store``, ``channels``, ``runs`` or ``counts``, because the first release
inserts rows there without naming the columns. Every statement names its columns, so
that a release ignores those that it does not know. For changes beyond that, the table
``life`` has two numbers. ``format`` is the highest ``FORMAT`` of the releases that have
used the file, and does not say who can read it. ``needs`` is the lowest ``FORMAT`` of a
release that can read it. A release whose ``FORMAT`` is below ``needs`` refuses the
file.
"""

from __future__ import annotations

#: The number of the format in which this release writes.
FORMAT = 3

#: Events dropped in one go at most, for each of the two reasons (too many, too old):
#: some 2 ms of work. More are dropped than are published meanwhile, so that the file
#: catches up.
PRUNED_AT_ONCE = 256


class Statements:
    """The statements for one store. ``data`` is null where a channel ends. A channel
    of which something was dropped has a mark: the highest dropped position. When
    nothing of the channel is left, its mark goes into ``forgotten``.

    :param prefix: what the names of its tables begin with.
    """

    def __init__(self, prefix: str) -> None:
        events, channels, store, runs, counts, life, index = (
            _quoted(f"{prefix}_{name}")
            for name in (
                *("events", "channels", "store", "runs", "counts", "life"),
                "by_channel",
            )
        )
        identities, told, turn = (
            _quoted(f"{prefix}_{name}") for name in ("identities", "told", "turn")
        )
        row = "sequence, time, channel, data, type, id, retry, trace"
        self.schema = (
            f"CREATE TABLE IF NOT EXISTS {store} (epoch TEXT NOT NULL, "
            "history INTEGER NOT NULL, age REAL NOT NULL, forgotten INTEGER NOT NULL)",
            f"CREATE TABLE IF NOT EXISTS {events} (sequence INTEGER PRIMARY KEY "
            "AUTOINCREMENT, time REAL NOT NULL, channel TEXT NOT NULL, "
            "data TEXT, type TEXT, id TEXT, retry TEXT, trace TEXT)",
            f"CREATE INDEX IF NOT EXISTS {index} ON {events} (channel, sequence)",
            f"CREATE TABLE IF NOT EXISTS {channels} (name TEXT PRIMARY KEY, "
            "dropped INTEGER NOT NULL) WITHOUT ROWID",
            f"CREATE TABLE IF NOT EXISTS {runs} (channel TEXT PRIMARY KEY, "
            "start INTEGER NOT NULL, budget INTEGER NOT NULL, token TEXT NOT NULL, "
            "lease REAL NOT NULL, ended REAL) WITHOUT ROWID",
            f"CREATE TABLE IF NOT EXISTS {counts} (process TEXT PRIMARY KEY, "
            "counts TEXT NOT NULL, lease REAL NOT NULL) WITHOUT ROWID",
            f"CREATE TABLE IF NOT EXISTS {life} (name TEXT PRIMARY KEY, "
            "value TEXT NOT NULL) WITHOUT ROWID",
            f"CREATE TABLE IF NOT EXISTS {identities} (process TEXT, channel TEXT, "
            "counts TEXT NOT NULL, PRIMARY KEY (process, channel)) WITHOUT ROWID",
            f"CREATE TABLE IF NOT EXISTS {told} (channel TEXT, identity TEXT, "
            "since REAL, PRIMARY KEY (channel, identity)) WITHOUT ROWID",
            f"CREATE TABLE IF NOT EXISTS {turn} (number INTEGER NOT NULL, "
            "process TEXT NOT NULL, lease REAL NOT NULL, holds REAL NOT NULL)",
            f"INSERT INTO {turn} (number, process, lease, holds) SELECT 0, '', 0, 0 "
            f"WHERE NOT EXISTS (SELECT 1 FROM {turn})",
        )
        # Files of earlier releases have no ``trace``.
        table = _literal(f"{prefix}_events")
        self.columns = f"SELECT name FROM pragma_table_info({table})"
        self.add_trace = f"ALTER TABLE {events} ADD COLUMN trace TEXT"
        self.begin = (
            f"INSERT INTO {store} (epoch, history, age, forgotten) SELECT ?, ?, ?, 0 "
            f"WHERE NOT EXISTS (SELECT 1 FROM {store})"
        )
        # The values that life.py keeps, by name.
        self.life = f"SELECT name, value FROM {life}"
        self.set_life = (
            f"INSERT INTO {life} (name, value) VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value"
        )
        self.has_life = (
            "SELECT 1 FROM sqlite_master WHERE type = 'table' "
            f"AND name = {_literal(f'{prefix}_life')}"
        )
        counted = f"name = {_literal(f'{prefix}_events')}"
        newest = f"coalesce((SELECT seq FROM sqlite_sequence WHERE {counted}), 0)"
        self.jump = f"UPDATE sqlite_sequence SET seq = ? WHERE {counted}"
        self.begin_jump = (
            "INSERT INTO sqlite_sequence (name, seq) "
            f"VALUES ({_literal(f'{prefix}_events')}, ?)"
        )
        self.state = f"SELECT epoch, {newest}, history, age FROM {store}"
        self.renew = f"UPDATE {store} SET epoch = ? WHERE epoch = ?"
        self.keep = f"UPDATE {store} SET history = ?, age = ?"
        insert = f"INSERT INTO {events} (time, channel, data, type, id, retry, trace) "
        self.insert = f"{insert} VALUES (?, ?, ?, ?, ?, ?, ?)"
        self.say = (
            f"{insert} SELECT ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM {runs} "
            "WHERE channel = ? AND token = ? AND ended IS NULL)"
        )
        self.begin_run = (
            f"INSERT OR REPLACE INTO {runs} "
            "(channel, start, budget, token, lease, ended) VALUES (?, ?, ?, ?, ?, NULL)"
        )
        self.end_run = (
            f"UPDATE {runs} SET ended = ? WHERE channel = ? AND ended IS NULL"
        )
        self.runner = f"SELECT token, start, ended FROM {runs} WHERE channel = ?"
        self.going_on = f"SELECT channel FROM {runs} WHERE ended IS NULL"
        self.ended_since = (
            f"SELECT 1 FROM {events} WHERE channel = ? AND sequence > ? "
            "AND data IS NULL AND type IS NULL LIMIT 1"
        )
        self.newest = (
            f"SELECT sequence, data IS NULL AND type IS NULL FROM {events} "
            "WHERE channel = ? ORDER BY sequence DESC LIMIT 1"
        )
        self.extend = f"UPDATE {runs} SET lease = ? WHERE channel = ? AND token = ?"
        self.lost = (
            f"SELECT channel FROM {runs} WHERE ended IS NULL "
            "AND lease NOT BETWEEN ? AND ?"
        )
        self.run = (
            f"SELECT start, budget FROM {runs} WHERE channel = ? "
            "AND coalesce(ended >= ?, 1) "
            "AND typeof(start) = 'integer' AND typeof(budget) = 'integer'"
        )
        self.delete_runs = f"DELETE FROM {runs} WHERE ended < ?"
        self.date_runs = f"UPDATE {runs} SET ended = ? WHERE ended > ?"
        self.count = (
            f"INSERT OR REPLACE INTO {counts} (process, counts, lease) VALUES (?, ?, ?)"
        )
        self.count_on = f"UPDATE {counts} SET lease = ? WHERE process = ?"
        self.counts = (
            f"SELECT counts FROM {counts} WHERE process != ? AND lease BETWEEN ? AND ?"
        )
        self.delete_count = f"DELETE FROM {counts} WHERE process = ?"
        self.delete_counts = f"DELETE FROM {counts} WHERE lease NOT BETWEEN ? AND ?"
        # A process's identities hold as long as its counts do.
        living = (
            f"process IN (SELECT process FROM {counts} WHERE lease BETWEEN ? AND ?)"
        )
        self.identify = (
            f"INSERT OR REPLACE INTO {identities} (process, channel, counts) "
            "VALUES (?, ?, ?)"
        )
        self.unidentify = f"DELETE FROM {identities} WHERE process = ? AND channel = ?"
        self.unidentify_all = f"DELETE FROM {identities} WHERE process = ?"
        self.is_identified = f"SELECT 1 FROM {identities} WHERE process = ? LIMIT 1"
        self.forget_dead = (
            f"DELETE FROM {identities} WHERE process NOT IN "
            f"(SELECT process FROM {counts})"
        )
        self.identities = (
            f"SELECT counts FROM {identities} WHERE channel = ? AND process != ? "
            f"AND {living}"
        )
        self.present = f"SELECT channel, counts FROM {identities} WHERE {living}"
        self.told = f"SELECT channel, identity, since FROM {told}"
        self.told_in = f"SELECT identity FROM {told} WHERE channel = ?"
        self.tell = (
            f"INSERT OR REPLACE INTO {told} (channel, identity, since) VALUES (?, ?, ?)"
        )
        self.untell = f"DELETE FROM {told} WHERE channel = ? AND identity = ?"
        self.turn = f"SELECT number, process, lease, holds FROM {turn}"
        self.take_turn = (
            f"UPDATE {turn} SET process = ?, lease = ?, holds = ? "
            "WHERE process = ? AND lease = ?"
        )
        self.number = f"UPDATE {turn} SET number = number + 1 WHERE number = ?"
        # Each row has the state too, so that both are of one moment.
        epoch, history, age = (
            f"(SELECT {name} FROM {store})" for name in ("epoch", "history", "age")
        )
        self.news = (
            f"SELECT {row}, {epoch}, {newest}, {history}, {age} "
            f"FROM {events} WHERE sequence >= ? ORDER BY sequence LIMIT ?"
        )
        self.past = (
            f"SELECT {row} FROM {events} WHERE channel = ? "
            "ORDER BY sequence DESC LIMIT ?"
        )
        self.mark = (
            f"SELECT coalesce((SELECT dropped FROM {channels} WHERE name = ?), "
            f"forgotten) FROM {store}"
        )
        # SQLite takes the last two columns from the row with the highest sequence.
        self.summaries = (
            "SELECT channel, count(data), max(sequence), time, "
            "data IS NULL AND type IS NULL "
            f"FROM {events} WHERE time >= ? GROUP BY channel"
        )
        self.too_many = (
            f"SELECT sequence, channel, time FROM {events} WHERE channel = ? "
            f"AND sequence <= (SELECT sequence FROM {events} WHERE channel = ? "
            "ORDER BY sequence DESC LIMIT 1 OFFSET ?) "
            f"ORDER BY sequence LIMIT {PRUNED_AT_ONCE}"
        )
        self.oldest = (
            f"SELECT sequence, channel, time, EXISTS (SELECT 1 FROM {runs} "
            f"WHERE channel = {events}.channel AND sequence >= start) "
            f"FROM {events} WHERE sequence > ? ORDER BY sequence LIMIT {PRUNED_AT_ONCE}"
        )
        self.up_to = (
            f"SELECT sequence, channel FROM {events} WHERE channel = ? "
            f"AND sequence <= ? ORDER BY sequence LIMIT {PRUNED_AT_ONCE}"
        )
        size = "coalesce(length(CAST(data AS BLOB)), 0)"
        self.sizes = f"SELECT channel, sum({size}) FROM {events} GROUP BY channel"
        self.news_size = (
            f"SELECT (SELECT coalesce(max(sequence), 0) FROM {events}), "
            f"coalesce(sum({size}), 0) FROM {events} WHERE sequence > ?"
        )
        self.weights = (
            f"SELECT sequence, {size} FROM {events} WHERE channel = ? "
            f"AND sequence < (SELECT max(sequence) FROM {events}) ORDER BY sequence"
        )
        self.delete = f"DELETE FROM {events} WHERE sequence = ?"
        self.date = f"UPDATE {events} SET time = ? WHERE sequence = ? AND time > ?"
        self.date_all = f"UPDATE {events} SET time = ? WHERE time > ?"
        self.is_kept = f"SELECT 1 FROM {events} WHERE channel = ? LIMIT 1"
        self.set_mark = (
            f"INSERT INTO {channels} (name, dropped) VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET dropped = max(dropped, ?)"
        )
        self.delete_mark = f"DELETE FROM {channels} WHERE name = ?"
        self.forget = f"UPDATE {store} SET forgotten = max(forgotten, ?)"


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _literal(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))
