"""The command line: ``flask sse …``, a way to an application's channels for operators
and scripts.

Here lives what the commands take and print. Each command is a process of its own, and
reaches the server through the broker, as any other process does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from .brokers import Broker
from .channels import Channels
from .doctor import PATIENCE, Wanted, examine, headers_of
from .errors import SSEError
from .event import RESERVED_CHANNEL_PREFIX, Event, channel_line

#: The exit status of a command that was interrupted, as shells have it.
INTERRUPTED = 130


class _Commands(AppGroup):
    """Commands that print an error's message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SSEError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


commands = _Commands("sse", help="Publish to channels, and look into them.")


def _reached() -> tuple[Channels, Broker]:
    """The application's channels, and the broker that they reach this process by."""
    channels: Channels = current_app.extensions["sse"]
    broker = channels.broker
    if not broker.is_shared:
        raise click.ClickException(
            "SSE_URL is memory://, which is one process's own: this command is another "
            'process than the server, and cannot reach it. Set app.config["SSE_URL"] '
            "to a broker that processes share, such as sqlite:///events.db."
        )
    return channels, broker


@commands.command("publish")
@click.argument("channel")
@click.argument("data")
@click.option("--type", help="What addEventListener listens to.")
@click.option("--id", help="An id of your own, instead of the event's position.")
@click.option("--retry", type=int, help="Milliseconds to wait before reconnecting.")
def publish(
    channel: str, data: str, type: str | None, id: str | None, retry: int | None
) -> None:
    """Publish an event to CHANNEL, and print its id.

    DATA is sent as it is; "-" stands for what comes in (its last line end is not sent).
    """
    channels, _ = _reached()
    sent = _read() if data == "-" else data
    click.echo(channels.publish(sent, type, id, retry, channel).id)


def _read() -> bytes:
    text = sys.stdin.buffer.read()
    return text.removesuffix(b"\n").removesuffix(b"\r")


@commands.command("tail")
@click.argument("names", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--since", metavar="ID", help="Begin behind the event that has this id.")
@click.option("--json", "form", flag_value="json", help="Print a JSON object a line.")
@click.option("--raw", "form", flag_value="raw", help="Print the wire format.")
def tail(names: tuple[str, ...], since: str | None, form: str | None) -> None:
    """Print what is published to channels, until they are closed.

    A line has an event's id, channel, type and data, with tabs between them. Where
    something behind the id is no longer there, an event "stream-gap" says so.
    """
    channels, _ = _reached()
    printed = _FORMS[form or "line"]
    for event in channels.messages(names, since, None):
        click.echo(printed(event), nl=False)
    click.echo("Closed.", err=True)


def _line(event: Event) -> bytes:
    fields = (event.id, event.channel, event.type or "message", event.data)
    return "\t".join(_shown(field or "") for field in fields).encode() + b"\n"


def _shown(text: str) -> str:
    """The text with escapes for line breaks and for what controls a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _json(event: Event) -> bytes:
    names = ("id", "channel", "type", "data", "retry")
    fields = {name: getattr(event, name) for name in names}
    return json.dumps(fields).encode() + b"\n"


def _raw(event: Event) -> bytes:
    head = channel_line(event.channel) if event.channel else b""
    return head + event.encode()


_FORMS: dict[str, Callable[[Event], bytes]] = {
    "line": _line,
    "json": _json,
    "raw": _raw,
}


@commands.command("channels")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON object a line.")
@click.option("--all", "is_all", is_flag=True, help="Print those of runs, too.")
def channels(is_json: bool, is_all: bool) -> None:
    """Print the channels of which something is retained: how many events, and since
    when the newest.
    """
    _, broker = _reached()
    found = [s for s in broker.summaries() if is_all or not _is_own(s.channel)]
    if is_json:
        for summary in found:
            click.echo(json.dumps(summary._asdict()))
        return
    width = max(len("CHANNEL"), *(len(_shown(s.channel)) for s in found), 0)
    click.echo(f"{'CHANNEL':{width}}  EVENTS  NEWEST")
    for name, count, age, is_closed in found:
        newest = (datetime.now() - timedelta(seconds=age)).isoformat(" ", "seconds")
        end = ", closed" if is_closed else ""
        click.echo(f"{_shown(name):{width}}  {count:6}  {newest}{end}")


def _is_own(channel: str) -> bool:
    return channel.startswith(RESERVED_CHANNEL_PREFIX)


@commands.command("present")
@click.argument("channel")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def present(channel: str, is_json: bool) -> None:
    """Print who listens to CHANNEL: the number of streams, and the identity.

    Streams whose client the application has given no identity are left out.
    """
    channels, _ = _reached()
    found = channels.present(channel)
    if is_json:
        click.echo(json.dumps(found))
        return
    for identity in sorted(found):
        click.echo(f"{found[identity]:6}  {_shown(identity)}")


@commands.command("close")
@click.argument("channel")
def close(channel: str) -> None:
    """End CHANNEL: its clients go, and do not come back by themselves."""
    channels, _ = _reached()
    channels.end(channel)


@commands.command("disconnect")
@click.option("--identity", help="Whose streams, in the application's words.")
@click.option("--channel", help="The streams of which channel.")
def disconnect(identity: str | None, channel: str | None) -> None:
    """End streams, so that the application decides anew about their clients."""
    if identity is None and channel is None:
        raise click.UsageError("Name --identity, --channel, or both.")
    channels, _ = _reached()
    channels.disconnect(identity, channel)


@commands.command("doctor")
@click.option("--url", help="The address of a stream or of the application, to ask it.")
@click.option(
    "--header",
    "headers",
    metavar="NAME: VALUE",
    multiple=True,
    help="Another header of each request, such as a Cookie.",
)
@click.option("--wait", type=float, help="Seconds to listen to a silent stream.")
@click.option("--patience", type=float, help="Seconds to wait for an answer.")
@click.option("--insecure", is_flag=True, help="Take any certificate.")
@click.option("--ignore", "ignored", metavar="CODE", multiple=True, help="Be silent.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(
    ctx: click.Context,
    url: str | None,
    headers: tuple[str, ...],
    wait: float | None,
    patience: float | None,
    insecure: bool,
    ignored: tuple[str, ...],
    is_json: bool,
) -> None:
    """Look for what keeps events from browsers: in the application, and with --url in
    its server and the proxies before it.

    The exit status is 1 where something is wrong, or warned of.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    wanted = (
        Wanted(url, headers_of(headers), wait, patience or PATIENCE, not insecure)
        if url
        else None
    )
    report = examine(app, wanted, ignored)
    click.echo(json.dumps(report.as_data()) if is_json else report.as_text())
    ctx.exit(0 if report.is_clean() else 1)
