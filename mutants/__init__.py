"""Mutation testing: the code is broken in small ways, and the tests must see each.

``changes`` says which ways there are, ``trial`` runs tests on one of them, and
``__main__`` runs all and compares what survives with ``equal.txt``. Nothing here
changes the checkout: a copy is broken, and removed.
"""
