"""What is drawn by lot: how long a thread waits, and whose turn comes first.

The operating system draws. The functions of the module ``random`` share one generator,
which belongs to the application: each draw of ours would change what the application
gets after ``random.seed``, and seeded processes would all wait equally long. A fork
would copy a generator of our own. What is drawn for stands where it is drawn.
"""

from __future__ import annotations

from random import SystemRandom

#: Draws numbers and orders. It has no state, so any thread can use it, and a fork
#: copies nothing. A draw takes a microsecond, so no delivery waits for one.
CHANCE = SystemRandom()
