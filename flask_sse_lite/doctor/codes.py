"""The codes: what a doctor checks, and what must be written where if it is wrong.

Here lives the wording of every mending, but for those of the way to the browser, which
``way_codes`` has. A code never changes once it was released. ``docs/doctor.rst``
explains each, and a test compares the two. The module that looks decides whether
something is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from .check import Check
from .way_codes import WAY_CODES

_COMMAND = (
    "Run the command with the environment that the server has: the same user, folder "
    "and variables."
)

CODES: Mapping[str, Check] = {
    # The application
    "settings": Check(
        "Whether the configuration can be read.",
        {"": "Correct the value. docs/configuration.rst has all settings."},
    ),
    "unread-settings": Check(
        "Whether there are SSE_… keys that nobody reads.",
        {"": "Correct the name of the key, or remove it."},
    ),
    "unread-url": Check(
        "Whether a broker's URL stands where nobody reads it.",
        {
            "": "Write it where the extension reads it, in the application:\n"
            '    app.config["SSE_URL"] = os.environ["SSE_URL"]\n'
            "Or call app.config.from_prefixed_env(), and set FLASK_SSE_URL."
        },
    ),
    "overruled-settings": Check(
        "Whether a setting is overruled by an option of the URL.",
        {"": "Say it in one of the two places: in the key, or behind the URL's ?."},
    ),
    "open-files": Check(
        "Whether there are file descriptors for as many streams as are allowed.",
        {
            "": "Raise the limit, or lower SSE_MAX_CONNECTIONS.",
            "systemd": "[Service]\nLimitNOFILE=65536",
            "Docker": "docker run --ulimit nofile=65536 …",
            "a shell": "ulimit -n 65536",
        },
    ),
    "middleware": Check(
        "Whether the application's own middlewares and hooks pass each event on as it "
        "is, and at once.",
        {
            "": "Exempt event streams from it: let it pass on as it is what has the\n"
            "Content-Type text/event-stream.",
            "Flask-Compress": 'app.config["COMPRESS_MIMETYPES"] must not have '
            '"text/event-stream".',
        },
    ),
    # The server
    "workers": Check(
        "Whether several processes serve the application with memory://.",
        {
            "": "Set SSE_URL to a broker that processes share:\n"
            '    app.config["SSE_URL"] = "sqlite:///events.db"',
            "gunicorn": "Or run one worker:\ngunicorn -k gevent -w 1 "
            "--worker-connections 10000 app:app",
        },
    ),
    "server-options": Check(
        "Whether the server has options that harm streams.",
        {
            "gunicorn": "Leave --max-requests at 0, or make it very large. Give\n"
            "--graceful-timeout 1 s or more. Let --worker-class be gevent, gthread or "
            "sync.\n"
            "With --preload, a thread that publishes needs an SSE_URL that processes "
            "share,\nsuch as sqlite:///events.db.",
            "uWSGI": "Leave out --cheaper, --idle and --max-requests.",
        },
    ),
    "uwsgi-threads": Check(
        "Whether uWSGI runs with --enable-threads.",
        {"uWSGI": "enable-threads = true"},
    ),
    "asgi-adapter": Check(
        "Whether an adapter of ASGI serves the application.",
        {
            "": "Serve the application by a WSGI server:\n"
            "    gunicorn -k gevent -w 1 --worker-connections 10000 app:app\n"
            "If you cannot, set SSE_MAX_AGE to 60, and give the adapter more threads "
            "than there\nare streams."
        },
    ),
    "collecting-server": Check(
        "Whether the server collects a whole response before it sends any of it.",
        {
            "": "Serve the application by a WSGI server that sends what it gets:\n"
            "    gunicorn -k gevent -w 1 --worker-connections 10000 app:app"
        },
    ),
    "kept-streams": Check(
        "Whether streams are taken over from the server, so that they cost no thread.",
        {
            "": "docs/deployment.rst explains each reason. Until it is gone, give the "
            "server more\nthreads than there are streams."
        },
    ),
    "held-worker": Check(
        "Whether the server answers while a stream is open.",
        {
            "": "Let streams be taken over from the server (kept-streams says why they "
            "are not), or\ngive the server more threads than there are streams.",
            "gunicorn": "gunicorn -k gevent -w 1 --worker-connections 10000 app:app",
            "uWSGI": "enable-threads = true\nthreads = 32",
        },
    ),
    # The broker
    "broker": Check(
        "Whether the broker can be reached.",
        {"": f"Start it, or correct SSE_URL. {_COMMAND}"},
    ),
    "same-broker": Check(
        "Whether the server publishes through the same broker as this command.",
        {"": _COMMAND},
    ),
    "redis-policy": Check(
        "Whether Redis deletes events when it is full.",
        {"redis.conf": "maxmemory-policy noeviction"},
    ),
    "redis-persistence": Check(
        "Whether Redis keeps events over its own restart.",
        {"redis.conf": "appendonly yes\nappendfsync everysec"},
    ),
    "redis-memory": Check(
        "Whether Redis has memory left.",
        {
            "": "Give Redis more memory (maxmemory), or keep less: lower SSE_HISTORY\n"
            "and SSE_HISTORY_AGE."
        },
    ),
    "sqlite-folder": Check(
        "Whether the SQLite file lies on a local disk.",
        {
            "": "Put the file on a local disk, with an absolute path (four slashes):\n"
            '    app.config["SSE_URL"] = "sqlite:////var/lib/shop/events.db"\n'
            "For several machines, use redis://."
        },
    ),
    "sqlite-rights": Check(
        "Whether the SQLite file and its folder can be written, by this user alone.",
        {
            "": "Give the folder and the file to the user that the server runs as:\n"
            "    chown shop: /var/lib/shop /var/lib/shop/events.db*\n"
            "    chmod 700 /var/lib/shop; chmod 600 /var/lib/shop/events.db*"
        },
    ),
    # The way to the browser
    **WAY_CODES,
}
