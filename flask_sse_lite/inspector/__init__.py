"""The inspector: a page that shows what an application's channels, streams and runs do.

``reporting`` is each worker's part: when it tells of itself, by a ``snapshot``.
``pages`` answers the page's requests, and ``forgery`` tells its own from those of other
pages. Who can look is answered in ``permission``. The files in ``static/`` make the
page.
"""
