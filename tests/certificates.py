"""Certificates of servers that speak TLS, from an authority of the tests' own."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme

from .servers import HOST


class Certificate(NamedTuple):
    """A server's certificate, and what makes its clients trust it: a context, and a
    file with the authority's certificate."""

    certificate: str
    key: str
    trust: ssl.SSLContext
    authority: str


def issued(folder: Path) -> Certificate:
    """A certificate for servers on the loopback.

    :param folder: takes the files.
    """
    authority = trustme.CA()
    pair = authority.issue_cert(HOST)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in pair.cert_chain_pems))
    pair.private_key_pem.write_to_path(key)
    root = folder / "authority.pem"
    authority.cert_pem.write_to_path(root)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Certificate(str(certificate), str(key), trust, str(root))
