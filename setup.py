"""For tools that know no pyproject.toml, where all that they ask for stands."""

from setuptools import setup

setup()
