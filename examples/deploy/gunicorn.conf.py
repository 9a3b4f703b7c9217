"""gunicorn's settings. ``gunicorn app:app`` reads them in the folder where it starts.

gunicorn listens to $PORT, or else to 127.0.0.1:8000. It has $WEB_CONCURRENCY workers,
or else one. More than one need SSE_URL (here, FLASK_SSE_URL).
"""

worker_class = "gevent"

# Requests at the same time. A stream is taken over, and counts only while it begins.
worker_connections = 2_000

# Seconds for requests and generators to end after SIGTERM. Streams of channels end at
# once, and browsers bring them back. What sends SIGTERM must wait for longer than this
# before it kills: see shop.service, compose.yaml and kubernetes.yaml.
graceful_timeout = 25

# A worker that is recycled sends all of its streams off.
max_requests = 0

# gunicornc's socket lies in $HOME by default, which a locked-down service cannot write.
control_socket_disable = True
