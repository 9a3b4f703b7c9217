"""The codes of the way to the browser: what a doctor checks of a running server and of
the proxies before it, and what must be written where if it is wrong.

``codes`` has all codes. The module that looks decides whether something is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from .check import Check

#: What nginx needs in front of streams, as docs/proxies.rst has it.
_NGINX_PASS = """
location / {
    proxy_pass http://127.0.0.1:8000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
}
"""

_UNTIL_LONGER = "Or lower SSE_HEARTBEAT, so that a comment comes well before that."

WAY_CODES: Mapping[str, Check] = {
    "answer": Check(
        "Whether the address answers.",
        {
            "": "See to it that the server and its proxy run, and that the address is "
            "right."
        },
    ),
    "away": Check(
        "Whether a stream is told to come back while the application is away.",
        {
            "": "docs/proxies.rst has the whole block for each proxy.",
            "nginx": """
set $asked "$request_method $http_accept";
if ($asked ~ "^GET .*text/event-stream") {
    error_page 500 502 503 504 =200 @away;
}
location @away {
    types {}
    default_type text/event-stream;
    add_header Cache-Control no-store;
    return 200 "retry: 3000\\n\\n";
}
""",
            "HAProxy": """
use_backend streams if METH_GET { req.fhdr(Accept) -m sub text/event-stream }
backend streams
    http-error status 503 content-type text/event-stream string "retry: 3000\\n\\n"
    http-response set-var(txn.answered) bool(true)
    http-after-response set-status 200 if { status 500:504 } \
!{ var(txn.answered) -m bool }
""",
            "Apache": """
<If "%{REQUEST_METHOD} == 'GET' && %{HTTP:Accept} =~ m#text/event-stream#">
    ErrorDocument 502 /away.asis
    ErrorDocument 503 /away.asis
</If>
""",
            "Caddy": """
handle_errors {
    @stream {
        method GET
        header Accept *text/event-stream*
    }
    handle @stream {
        header Content-Type text/event-stream
        respond "retry: 3000
        " 200
    }
}
""",
            "Varnish": """
sub vcl_backend_error {
    if (bereq.method == "GET" && bereq.http.Accept ~ "text/event-stream") {
        set beresp.status = 200;
        set beresp.http.Content-Type = "text/event-stream";
        set beresp.http.Cache-Control = "no-store";
        set beresp.body = {"retry: 3000

"};
        return (deliver);
    }
}
""",
        },
    ),
    "room": Check(
        "Whether there is room for one more stream.",
        {
            "": "Raise SSE_MAX_CONNECTIONS, SSE_MAX_PER_CLIENT or the limit on open\n"
            "files, or add workers."
        },
    ),
    "login": Check(
        "Whether the client is let in.",
        {
            "": "If the stream needs a login, give the doctor one:\n"
            "    flask sse doctor --url … --header 'Cookie: session=…'\n"
            "Answer a stream that is not let in with 401 or 403, never with a page. In "
            "the view:\n"
            "    if not current_user.is_authenticated:\n"
            "        abort(401)"
        },
    ),
    "redirect": Check(
        "Whether the address is that of the stream itself.",
        {"": "Have the page connect to the address that the redirect names."},
    ),
    "content-type": Check(
        "Whether the answer is an event stream.",
        {
            "": "Correct the address. A page of the proxy's own, such as one for "
            "maintenance, must go\nonly to requests that do not accept "
            "text/event-stream."
        },
    ),
    "buffering": Check(
        "Whether events come as they are published, and are not collected on the way.",
        {
            "nginx": "Take X-Accel-Buffering out of proxy_ignore_headers, or write:\n"
            "proxy_buffering off;",
            "HAProxy": "Take out: option http-buffer-response",
            "Apache": "SetEnvIfNoCase Accept text/event-stream no-gzip",
            "Caddy": "reverse_proxy 127.0.0.1:8000 {\n    flush_interval -1\n}",
            "Varnish": "sub vcl_recv {\n"
            '    if (req.http.Accept ~ "text/event-stream") {\n'
            "        return (pipe);\n    }\n}",
            "the application": "Exempt streams from the middleware that collects the "
            "body:\nflask sse doctor (without --url) looks for it.",
        },
    ),
    "delay": Check(
        "Whether each event is held back for a moment on the way.",
        {
            "HAProxy": "defaults\n    option http-no-delay",
            "nginx": "tcp_nodelay on;",
        },
    ),
    "compression": Check(
        "Whether the stream is compressed.",
        {
            "nginx": "Take text/event-stream (or *) out of gzip_types.",
            "HAProxy": "Take text/event-stream out of: compression type",
            "Apache": "SetEnvIfNoCase Accept text/event-stream no-gzip",
            "Caddy": "encode {\n    gzip\n    match {\n"
            "        not header Content-Type text/event-stream*\n    }\n}",
            "Varnish": "sub vcl_backend_response {\n"
            '    if (beresp.http.Content-Type ~ "text/event-stream") {\n'
            "        set beresp.do_gzip = false;\n    }\n}",
            "Flask-Compress": 'app.config["COMPRESS_MIMETYPES"] must not have '
            '"text/event-stream".',
        },
    ),
    "time-out": Check(
        "Whether a silent stream stays open for longer than two heartbeats.",
        {
            "": _UNTIL_LONGER,
            "nginx": "proxy_read_timeout 60s;\nproxy_send_timeout 60s;",
            "HAProxy": "defaults\n    timeout client 60s\n    timeout server 60s",
            "Apache": "Timeout 60\nProxyTimeout 60",
            "Caddy": "Take read_timeout out of transport http, and write_timeout\n"
            "out of servers.",
            "Varnish": "backend default {\n    .first_byte_timeout = 60s;\n"
            "    .between_bytes_timeout = 60s;\n}",
            "gunicorn": "A stream that holds a sync worker is killed after --timeout:\n"
            "see held-worker.",
            "uWSGI": "http-timeout = 60",
        },
    ),
    "heartbeat": Check(
        "Whether the comments come that keep a silent stream open.",
        {
            "": "What holds them back holds events back, too: see buffering. "
            "SSE_HEARTBEAT says\nhow often they come."
        },
    ),
    "caching": Check(
        "Whether the headers arrive that keep caches away, and no cache answers.",
        {
            "nginx": "Take expires, add_header Cache-Control, proxy_hide_header "
            "Cache-Control and proxy_cache\noff the location of the stream.",
            "Apache": "Take ExpiresActive, Header set Cache-Control and CacheEnable\n"
            "off the stream's location.",
            "Caddy": "Take header Cache-Control off the stream's path.",
            "HAProxy": "Take http-response set-header Cache-Control off the stream's "
            "backend.",
            "Varnish": "sub vcl_recv {\n"
            '    if (req.http.Accept ~ "text/event-stream") {\n'
            "        return (pipe);\n    }\n}",
            "a CDN": "Let it pass on text/event-stream without caching it.",
        },
    ),
    "http-version": Check(
        "Which versions of HTTP the proxy and the browser speak.",
        {
            "": "Have the proxy speak HTTP/1.1 to the application.",
            "nginx": _NGINX_PASS,
        },
    ),
    "leaving": Check(
        "Whether the application notices that a client has left.",
        {
            "": "Serve streams past what reads on behind a client that has left, or\n"
            "set SSE_MAX_AGE to 300, after which a stream ends in any case.",
            "Varnish": "sub vcl_recv {\n"
            '    if (req.http.Accept ~ "text/event-stream") {\n'
            "        return (pipe);\n    }\n}",
        },
    ),
    "last-event-id": Check(
        "Whether the header Last-Event-ID reaches the application.",
        {
            "nginx": "Take out: proxy_set_header Last-Event-ID (and "
            "proxy_pass_request_headers off)",
            "HAProxy": "Take out: http-request del-header Last-Event-ID",
            "Apache": "Take out: RequestHeader unset Last-Event-ID",
            "Caddy": "Take out: header_up -Last-Event-ID",
            "Varnish": "Take out: unset req.http.Last-Event-ID",
            "a CDN": "Let it pass on the header Last-Event-ID.",
        },
    ),
    "query": Check(
        "Whether the query of the address reaches the application.",
        {
            "nginx": "proxy_pass http://127.0.0.1:8000;\n"
            "(with a variable: proxy_pass http://$upstream$uri$is_args$args;)",
            "Varnish": "Take out what cuts req.url at its ?.",
            "a CDN": "Let it pass on all parameters of the query.",
        },
    ),
    "resuming": Check(
        "Whether a client that comes back gets what it missed.",
        {
            "": "With several processes, see workers. With a cache, see caching.\n"
            "Otherwise raise SSE_HISTORY and SSE_HISTORY_AGE."
        },
    ),
}
