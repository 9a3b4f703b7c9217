"""The tests. Those of what goes on for long take seconds, and minutes with ``SOAK`` in
the environment, as in ``make soak``."""

import os

IS_LONG = bool(os.environ.get("SOAK"))
