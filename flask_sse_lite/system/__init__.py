"""The operating system, threads and gevent.

Each module here wraps one thing that the machine has: a lock, a pipe, a clock, a poll.
Nothing here knows of events, channels or streams, and nothing here imports from another
room of the package but its errors.
"""
