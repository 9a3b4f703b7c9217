"""Behind Apache with mod_wsgi, which takes the ``Location`` of a 200 as an order to
itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .servers import HOST, ROOT, Client, Server, reserved_port

APACHE = shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MOD_WSGI = next(Path("/usr").glob("lib*/**/mod_wsgi.so"), None)

pytestmark = pytest.mark.skipif(
    not (APACHE and MOD_WSGI), reason="Apache or its mod_wsgi is not installed"
)

#: What the application needs. All of it is plain Python, as mod_wsgi has a Python of
#: its own.
PACKAGES = (
    *("blinker", "click", "flask", "flask_sse_lite", "itsdangerous", "jinja2"),
    *("markupsafe", "werkzeug"),
)

SERVED = """
from flask import Flask
from flask_sse_lite import sse

application = Flask(__name__)
sse.init_app(application, url_prefix="/stream")

@application.route("/answer", methods=["GET", "POST"])
def answer():
    return sse.run(f"word {number}" for number in range(3))

@application.get("/")
def index():
    return "plain"
"""

CONFIGURATION = """
ServerRoot {home}
PidFile {home}/pid
Listen {host}:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
{user}
ServerName localhost
ErrorLog {home}/error
DefaultRuntimeDir {home}
WSGISocketPrefix {home}/wsgi
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias / {home}/served.wsgi
{mode}
<Directory {home}>
Require all granted
</Directory>
"""

MODES = {
    "daemon": "WSGIDaemonProcess d threads=8 processes=1 python-path={home}/packages\n"
    "WSGIProcessGroup d",
    "embedded": "WSGIPythonPath {home}/packages\nServerLimit 1\nThreadsPerChild 8",
}


@pytest.fixture(scope="module", params=MODES)
def apache(request: pytest.FixtureRequest) -> Iterator[Server]:
    assert APACHE
    assert MOD_WSGI
    with TemporaryDirectory(prefix="apache-") as home, reserved_port() as port:
        folder = Path(home)
        for name in PACKAGES:
            spec = importlib.util.find_spec(name)
            assert spec
            assert spec.origin
            shutil.copytree(Path(spec.origin).parent, folder / "packages" / name)
        folder.joinpath("served.wsgi").write_text(SERVED)
        folder.joinpath("apache.conf").write_text(
            CONFIGURATION.format(
                home=home,
                host=HOST,
                port=port,
                modules=MOD_WSGI.parent,
                user="" if os.geteuid() else "User nobody\nGroup nogroup",
                mode=MODES[request.param].format(home=home),
            )
        )
        # Apache's children run as nobody.
        subprocess.run(["chmod", "-R", "a+rX", home], check=True)
        command = [APACHE, "-D", "FOREGROUND", "-f", f"{home}/apache.conf"]
        server = Server(port, command, ROOT, dict(os.environ) | {"HOME": home}, None)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_run_and_where_it_goes_on_both_reach_the_client(
    apache: Server, method: str
) -> None:
    with Client(apache.port) as client:
        client.request("/answer", method=method, headers={"Content-Length": "0"})
        assert client.status == 200
        assert "location" not in client.headers
        address = client.headers["content-location"]
        events = list(client.events)
    assert [event.data for event in events if event.type is None] == [
        "word 0",
        "word 1",
        "word 2",
    ]
    first = events[1].id
    assert first is not None
    with Client(apache.port) as client:
        client.request(address, headers={"Last-Event-ID": first})
        texts = [event.data for event in client.events if event.type is None]
    assert texts == ["word 1", "word 2"]
