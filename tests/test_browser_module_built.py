"""The module as it is built: it is what its source gives, it is small, and its parser
and its backoff hold, in Node.js."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.browser_module import module

from .servers import ROOT

SOURCE = ROOT / "client"

#: Where esbuild is installed, once.
INSTALLED = ROOT / "build" / "client"

INSTALL_SECONDS = 300

#: Bytes that the module may have, compressed: a page loads it before its first event.
LIMIT = 4500


@pytest.fixture(scope="module")
def esbuild() -> Path:
    if not (shutil.which("node") and (npm := shutil.which("npm"))):
        pytest.skip("Node.js and npm are not installed")
    wanted = (SOURCE / "package.json").read_text("utf-8")
    stamp = INSTALLED / "installed.json"
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        shutil.rmtree(INSTALLED, ignore_errors=True)
        INSTALLED.mkdir(parents=True)
        (INSTALLED / "package.json").write_text(wanted, "utf-8")
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        done = subprocess.run(
            [npm, "install", *options, "--prefix", INSTALLED],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        stamp.write_text(wanted, "utf-8")
    return INSTALLED / "node_modules" / ".bin" / "esbuild"


def test_the_module_is_what_its_source_gives(esbuild: Path, tmp_path: Path) -> None:
    words = json.loads((SOURCE / "package.json").read_text("utf-8"))["scripts"]["build"]
    options = [w for w in words.split()[1:] if not w.startswith("--outfile=")]
    built = tmp_path / "sse.js"
    command = [esbuild, *options, f"--outfile={built}", "--log-level=error"]
    subprocess.run(command, cwd=SOURCE, check=True, timeout=60)
    assert built.read_bytes() == module().text, "in client/: npm install, npm run build"


def test_the_module_is_small() -> None:
    assert len(gzip.compress(module().text, 9)) <= LIMIT


def node(script: str, *arguments: str) -> Any:
    """What a script of Node.js prints, as JSON."""
    if not shutil.which("node"):
        pytest.skip("Node.js is not installed")
    command = ["node", "--input-type=module", "--eval", script, "--", *arguments]
    done = subprocess.run(
        command, cwd=SOURCE, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PARSE = """
import { parser } from "./parser.js";
const [text, size] = JSON.parse(process.argv.at(-1));
const all = [];
for (const step of size ? [size] : Array.from(text, (_, n) => n + 1)) {
    const seen = [];
    const feed = parser("0");
    for (let at = 0; at < text.length; at += step) {
        for (const block of feed(text.slice(at, at + step))) {
            const { type, data, id, marked, channel, retry, comment } = block;
            if (marked || data !== undefined) seen.push([type, data, id, channel]);
            if (retry !== undefined) seen.push(["retry", retry]);
            if (comment !== undefined) seen.push(["comment", comment]);
        }
    }
    all.push(JSON.stringify(seen));
}
if (new Set(all).size > 1) throw new Error(all.join("\\n"));
console.log(all[0]);
"""

#: Streams, and what a client makes of each, in whatever pieces it comes.
STREAMS: dict[str, list[list[Any]]] = {
    "data: a\n\n": [["message", "a", "0", None]],
    "data:a\ndata: b\ndata\n\n": [["message", "a\nb\n", "0", None]],
    "data: a\r\n\r\ndata: b\r\rdata:  c\n\n": [
        *(["message", data, "0", None] for data in ("a", "b", " c")),
    ],
    "id: 1\n\ndata: a\n\nid\ndata: b\n\n": [
        ["message", None, "1", None],
        ["message", "a", "1", None],
        ["message", "b", "", None],
    ],
    "id: 1\0\ndata: a\n\n": [["message", "a", "0", None]],
    "event: x\n\ndata: a\n\n": [["message", "a", "0", None]],
    "event: x\nchannel: c: d\ndata\n\n": [["x", "", "0", "c: d"]],
    "retry: 5\nretry: 5x\nretry\n\n": [["retry", 5]],
    ": heartbeat 15\n\n:\n\n": [["comment", "heartbeat 15"], ["comment", ""]],
    "other: x\ndata x\n\ndata: unfinished\n": [],
}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_is_read_in_whatever_pieces_it_comes(stream: str) -> None:
    assert node(PARSE, json.dumps([stream])) == STREAMS[stream]


def test_waits_grow_to_half_a_minute_with_full_jitter() -> None:
    script = """
    import { backoff, retryAfter } from "./backoff.js";
    Math.random = () => 1;
    const longest = [0, 1, 2, 9, 99].map((n) => backoff(1000, n));
    Math.random = () => 0;
    const now = Date.parse("2026-01-01T00:00:00Z");
    Date.now = () => now;
    console.log(JSON.stringify([
        longest, backoff(1000, 5), retryAfter("7"),
        retryAfter("Thu, 01 Jan 2026 00:01:00 GMT"), retryAfter(null) ?? null,
    ]));
    """
    assert node(script) == [[1000, 2000, 4000, 30_000, 30_000], 0, 7000, 60_000, None]


def test_what_was_seen_is_known_in_each_epoch() -> None:
    script = """
    import { Seen, isBehind } from "./position.js";
    const [a, b] = ["a", "b"].map((c) => c.repeat(16));
    const seen = new Seen();
    seen.add(`${a}-5`);
    seen.add(`${b}-1`);
    seen.add("the application's");
    console.log(JSON.stringify([
        seen.has(`${a}-5`), seen.has(`${a}-6`), seen.has("the application's"),
        seen.lacks(`${a}-6`), seen.lacks(`${b}-1`), seen.lacks("another"),
        isBehind(`${a}-9`, `${a}-10`), isBehind(`${a}-10`, `${a}-9`),
        isBehind("x", "x"), isBehind(`${a}-1`, `${b}-1`),
    ]));
    """
    assert node(script) == [
        *(True, False, False, True, False, False, True, False, False, True)
    ]


#: Reads a stream that is cut once, at each of its bytes in turn, and goes on elsewhere.
CUT_ANYWHERE = """
import { Wire } from "./wire.js";
globalThis.location = { origin: "http://test" };
Math.random = () => 0; // No wait.
const blocks = JSON.parse(process.argv.at(-1));
const bytesOf = (text) => new TextEncoder().encode(text);
/** What the server sends to a client that stands behind so many blocks. */
function streamFrom(at) {
    const opening = `event: stream-open\\ndata: \\nid: ${at}\\n\\n`;
    return bytesOf(opening + blocks.slice(at).join(""));
}

const resumed = new Set();

async function heardWithACutAt(cut) {
    const seen = [];
    let requests = 0;
    globalThis.fetch = async (url, { headers }) => {
        const since = headers.get("Last-Event-ID");
        const all = streamFrom(Number(since ?? 0));
        const isCut = ++requests === 1;
        if (!isCut) resumed.add(since);
        const pieces = [isCut ? all.slice(0, cut) : all];
        const body = new ReadableStream({
            pull(controller) {
                if (pieces.length) controller.enqueue(pieces.pop());
                else if (isCut) controller.error(new Error("cut"));
                else controller.close();
            },
        }, { highWaterMark: 0 });
        const type = { "Content-Type": "text/event-stream" };
        return { status: 200, headers: new Headers(type), body };
    };
    return new Promise((resolve) => {
        const wire = new Wire(new URL("http://test/stream"), {}, (state) => {
            if (state === "ended") resolve(seen);
        }, (events) => {
            for (const { type, data } of events) {
                if (type === "message" && data !== undefined) seen.push(data);
            }
        });
        wire.open([]);
    });
}

const results = new Set();
const length = streamFrom(0).length;
for (let cut = 0; cut <= length; cut += 1) {
    results.add(JSON.stringify(await heardWithACutAt(cut)));
}
console.log(JSON.stringify([
    resumed.size, [...results].map((text) => JSON.parse(text)),
]));
"""


def test_a_cut_at_any_byte_loses_and_doubles_nothing() -> None:
    texts = [f"{n} größer\n😀 {'x' * (n % 7)}" for n in range(39)]
    blocks = [
        Event(text, id=str(n)).encode().decode() for n, text in enumerate(texts, 1)
    ]
    end = "event: stream-end\ndata: \nid: 40\n\n"
    positions, (heard,) = node(CUT_ANYWHERE, json.dumps([*blocks, end]))
    assert heard == texts
    assert positions == 1 + 1 + len(texts)  # None, the opening's, and each event's.
