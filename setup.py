"""What the package is called, and what it needs."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    '__version__ = "(.+)"', (HERE / "flask_sse_lite" / "__init__.py").read_text("utf-8")
)
if VERSION is None:
    raise SystemExit("flask_sse_lite/__init__.py does not say its __version__")

# The gevent worker needs packaging, which gunicorn's own extra does not name in all
# versions.
GUNICORN = ["gunicorn[gevent]>=20.1", "packaging"]
REDIS = ["redis>=5"]
SQLALCHEMY = ["SQLAlchemy>=2"]
DEMO = [*GUNICORN, "psutil>=5.9"]
TEST = [
    *DEMO,
    *REDIS,
    *SQLALCHEMY,
    "anthropic>=2",
    "cheroot>=10",
    "ddtrace>=3",
    "flask-compress>=1.17",
    "flask-cors>=4",
    "flask-login>=0.6.3",
    "h11>=0.14",
    "h2>=4.1",
    "httpx>=0.27",
    "httpx-sse>=0.4",
    "httpx2>=2",
    "hypothesis>=6.100",
    "mypy>=2",
    "newrelic>=10",
    "openai>=3",
    "opentelemetry-instrumentation-flask>=0.49b0",
    "opentelemetry-instrumentation-wsgi>=0.49b0",
    "opentelemetry-sdk>=1.28",
    "playwright>=1.40",
    "pyOpenSSL>=24",
    "pytest>=8",
    "pytest-xdist>=3.8",
    "pyuwsgi>=2.0.27",
    "sentry-sdk[flask]>=2.20",
    "sseclient-py>=1.8",
    "trustme>=1.1",
    "waitress>=3",
]
DEV = [*TEST, "ruff>=0.6", "types-Flask-Cors", "types-psutil"]

setup(
    name="flask-sse-lite",
    version=VERSION[1],
    description="Server-Sent Events for Flask, on any WSGI server",
    long_description=(HERE / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    packages=find_packages(include=["flask_sse_lite", "flask_sse_lite.*"]),
    package_data={"flask_sse_lite": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["Flask>=3.0"],
    extras_require={
        "gunicorn": GUNICORN,
        "redis": REDIS,
        "sqlalchemy": SQLALCHEMY,
        "demo": DEMO,
        "test": TEST,
        "dev": DEV,
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Web Environment",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP :: Dynamic Content",
        "Topic :: Internet :: WWW/HTTP :: WSGI",
        "Typing :: Typed",
    ],
)
