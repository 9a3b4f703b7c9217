"""The operating system, threads and gevent.

Each module here wraps one thing that the machine has: a lock, a pipe, a clock, a poll.
No module here knows of events, channels or streams. From the rest of the package, it
imports only the errors.
"""
