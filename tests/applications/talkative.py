"""The channels, with all that is logged of them: for servers that, while they serve a
stream, answer nobody who asks."""

from __future__ import annotations

import logging

from .channels import app as app

logging.getLogger("flask_sse_lite").setLevel(logging.DEBUG)
