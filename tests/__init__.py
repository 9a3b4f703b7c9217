"""The tests. Those that go on for long take seconds; with ``SOAK`` in the environment,
as in ``make soak``, they take minutes."""

import os

IS_LONG = bool(os.environ.get("SOAK"))
