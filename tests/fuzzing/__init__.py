"""Fuzzing: ``make fuzz`` has atheris look for bytes that break what reads them.

targets.py says what is read, and what must hold; each target begins with some seeds.
running.py runs one target in a process of its own. What has once broken a target
becomes a test beside the module that was mended.
"""
