"""A service that speaks the formats of OpenAI, Anthropic and Vercel's AI SDK, so that
their clients can use it. The providers change these formats; the streams are
``EventStream``.

From the folder ``examples``, with either of::

    gunicorn -k gevent -w 1 -b 127.0.0.1:8000 openai_compatible:app
    python -m flask --app openai_compatible run -p 8000

A small model of our own (``model.py``) answers, at ``FLASK_TOKENS_PER_SECOND=20``. It
calls a tool that the prompt names. Under the names ``river-busy`` and ``river-broken``
it fails.

With ``OPENAI_API_KEY`` or ``ANTHROPIC_API_KEY`` in the environment, that provider
answers. (``OPENAI_BASE_URL`` or ``ANTHROPIC_BASE_URL`` names another service that has
the same format.) Anybody who reaches this service then spends your money: it asks for
no login.

OpenAI's client, for ``/v1/chat/completions`` and ``/v1/responses``::

    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    asked = [{"role": "user", "content": "What is a river?"}]
    client.chat.completions.create(model="river", messages=asked, stream=True)

Anthropic's, for ``/v1/messages``::

    client = Anthropic(base_url="http://127.0.0.1:8000", api_key="none")
    with client.messages.stream(model="river", messages=asked, max_tokens=99) as stream:
        print(stream.get_final_text())

The AI SDK's, for ``/api/chat``::

    const api = "http://127.0.0.1:8000/api/chat";
    const transport = new DefaultChatTransport({ api });
    const { messages, sendMessage } = useChat({ transport });
"""

from __future__ import annotations

import os

from flask import Flask

from flask_sse_lite import sse

from . import chat_completions, messages, responses, ui_messages


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        TOKENS_PER_SECOND=20,
        OPENAI_API_KEY=os.environ.get("OPENAI_API_KEY"),
        OPENAI_BASE_URL=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        # The model that answers at /api/chat.
        OPENAI_MODEL=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
        ANTHROPIC_API_KEY=os.environ.get("ANTHROPIC_API_KEY"),
        ANTHROPIC_BASE_URL=os.environ.get(
            "ANTHROPIC_BASE_URL", "https://api.anthropic.com"
        ),
    )
    app.config.from_prefixed_env()  # FLASK_TOKENS_PER_SECOND=… sets that, and so on
    sse.init_app(app, url_prefix=None)  # Checks SSE_HEARTBEAT. No channel is used.
    for module in (chat_completions, responses, messages, ui_messages):
        app.register_blueprint(module.blueprint)
    return app


app = create_app()
