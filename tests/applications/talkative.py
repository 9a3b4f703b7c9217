"""The channels, with all that is logged of them: for servers that answer no other
request while they serve a stream."""

from __future__ import annotations

import logging

from .channels import app as app

logging.getLogger("flask_sse_lite").setLevel(logging.DEBUG)
