"""The soak of a whole service: ``python -m tests.soak``, or ``make soak-service``.

Clients come and go, events are published without a pause, and meanwhile workers are
killed and replaced, Redis restarts, and a part of the clients loses its network. Every
client checks what it is sent. What came of it is one page, ``build/soak/index.html``.

- ``plan``: how long, how many, and when something is done to the service.
- ``service``: gunicorn and Redis, and what is done to them.
- ``network``: a network that can be taken away.
- ``clients``: the clients, in processes of their own; ``visitor`` is one of them, and
  what it must be sent.
- ``publishing``: the publishers, and what is known of each event.
- ``sampling``: what workers hold, and how long a bare echo takes.
- ``record``: all that a run has seen.
- ``verdicts``: which promises the record keeps.
- ``page`` and ``plots``: the record and the verdicts as HTML.
- ``conducting``: one run, from its beginning to its record.
"""
