"""The extension with clients that have a name, and ways to throw them out.

What never lives here: anything that changes what the extension does.
"""

from __future__ import annotations

from flask import request
from ours import app

from flask_sse_lite import sse


@sse.identity
def who() -> str:
    return request.args["who"]


@app.post("/disconnect")
def disconnect() -> dict[str, int]:
    """Throw out an identity, or whoever listens to a channel."""
    identity, channel = map(request.args.get, ("identity", "channel"))
    sse.disconnect(identity=identity, channel=channel)
    return {"disconnected": 1}


@app.post("/disconnect-each")
def disconnect_each() -> dict[str, int]:
    """Throw out so many identities, one after the other."""
    count = int(request.args["count"])
    for number in range(count):
        sse.disconnect(identity=str(number))
    return {"disconnected": count}
