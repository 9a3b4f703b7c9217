"""An application's iterables, whose items become events.

Items are read one at a time, each when the one before is sent. A run reads its items in
a thread of its own, so that the run outlives the request that began it. How an event
reaches a client is never known here.
"""
