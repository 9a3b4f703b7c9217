"""The broker suite: the tests that every broker must pass.

To test a broker of your own, write a module of tests with
``from flask_sse_lite.testing.broker_suite import *``, and with a fixture ``store`` that
returns a ``StoreUnderTest`` for that broker. Only this package imports pytest.
"""

from __future__ import annotations

import pytest

MODULES = ("harness", "publishing", "resuming", "life", "runs", "counts", "presence")

# With this, an assertion that fails shows its values, as in a module of tests.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in MODULES))

from .counts import *  # noqa: E402, F403
from .harness import *  # noqa: E402, F403
from .life import *  # noqa: E402, F403
from .presence import *  # noqa: E402, F403
from .publishing import *  # noqa: E402, F403
from .resuming import *  # noqa: E402, F403
from .runs import *  # noqa: E402, F403


@pytest.fixture
def shared(store: StoreUnderTest) -> StoreUnderTest:  # noqa: F405
    """The store, for tests that make sense only where several processes share it."""
    if not store.is_shared:
        pytest.skip("Nothing is shared")
    return store
