"""For tools that cannot read pyproject.toml, where all metadata stands."""

from setuptools import setup

setup()
