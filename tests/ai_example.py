"""The example ``openai_compatible`` on a server, and what its model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from .servers import ROOT, Server, serve

EXAMPLES = ROOT / "examples"


APPLICATION = "tests.applications.ai:app"


#: Variables that are set for somebody who uses the providers.
KEYS = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"),
    *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"),
)


PROMPT = "What is a bridge?"


#: A question that makes the model call the tool.
CALLING = "Please get weather for 3 days in Oslo"


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}


@contextmanager
def serve_example(
    kind: str, environment: Mapping[str, str] | None = None, *, heartbeat: float = 0.1
) -> Iterator[Server]:
    """The example, with these keys in its environment and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS:
            patch.delenv(name, raising=False)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        config = {"app": APPLICATION, "folder": EXAMPLES, "SSE_HEARTBEAT": heartbeat}
        with serve(kind, **config) as server:  # type: ignore[arg-type]
            yield server
