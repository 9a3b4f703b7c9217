"""Iterables of an application, whose items become events.

Items are read one at a time, each when the one before is sent. A run reads them in a
thread of its own, so that they outlive the request that began them. How an event
reaches a client is unknown here.
"""
