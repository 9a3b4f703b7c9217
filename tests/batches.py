"""What a batch that a reader is given holds."""

from __future__ import annotations

from flask_sse_lite.history.cursor import Batch


def data_of(batch: Batch) -> list[str]:
    return [entry.event.data for entry in batch.entries if entry.event]


def lost_in(batch: Batch) -> list[str]:
    """The channels of a batch's gap; none where the batch has no gap."""
    if batch.gap is None:
        return []
    channels: list[str] = batch.gap.json["channels"]
    return channels
