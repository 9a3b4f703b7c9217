"""Delivery: which bytes go to which client, and when.

The hub is one loop per process, and serves every open stream of the process. The
handoff brings connections to it; other streams stay with the WSGI server that iterates
them. What an event says, and who is allowed to listen, is unknown here.
"""

from __future__ import annotations

from .looks import LONGEST_LOOK
from .loop import Hub, current_hub

__all__ = ["LONGEST_LOOK", "Hub", "current_hub"]
