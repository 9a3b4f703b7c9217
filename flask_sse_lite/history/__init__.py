"""The memory of a process: what each channel has kept, and where each reader stands.

The log holds events in order, and a cursor reads them. Nothing here starts a thread,
sends a byte or asks a store: a broker feeds the log, and the hub reads it.
"""
