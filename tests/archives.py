"""Archives that the tests unpack."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack a tar archive into a folder."""
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        # Debian 12's Python has no filters, and later ones warn where none is chosen.
        tar.extraction_filter = getattr(
            tarfile, "data_filter", lambda member, _: member
        )
        tar.extractall(folder)
