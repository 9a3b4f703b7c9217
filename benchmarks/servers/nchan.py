"""Becomes an nginx with nchan: ``python nchan.py PORT CONNECTIONS FOLDER``.

It writes the configuration to FOLDER, which is nginx's prefix, and replaces itself by
nginx. The buffer is as long as our history, so that both can replay the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

NGINX = "/usr/sbin/nginx"  # Debian's, which is not on everybody's PATH
MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"

CONFIGURATION = """\
load_module {module};
daemon off;
worker_processes 1;
error_log stderr error;
pid nginx.pid;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        nchan_channel_id sse;
        nchan_message_buffer_length 256;
        location = /stream {{ nchan_subscriber eventsource; }}
        location = /events {{ nchan_publisher; }}
        location / {{ return 404; }}
    }}
}}
"""


def main() -> None:
    port, connections, folder = sys.argv[1:]
    prefix = Path(folder).resolve()
    prefix.mkdir(parents=True, exist_ok=True)
    file = prefix / "nginx.conf"
    filled = CONFIGURATION.format(module=MODULE, port=port, connections=connections)
    file.write_text(filled, encoding="utf-8")
    os.execv(NGINX, [NGINX, "-e", "stderr", "-p", f"{prefix}/", "-c", str(file)])


if __name__ == "__main__":
    main()
