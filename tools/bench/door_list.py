"""The doors that doors.py measures: what each is made of, and the least that it must be compared with."""
import getpass
import json
import os
from typing import Callable, NamedTuple

from door_ways import Grpc, Kept, http, take
from servers import HERE, DemoError

ROOT = HERE.parent.parent
CONF = ROOT / "conf"
RULES = [{"name": "api", "limit": 2147483648, "window": "1h",  # all requests are admitted: what is measured is the question
          "match": {"domain": "bench", "descriptors": [{"key": "bench"}]}}]  # what tally_rls_load asks for
GRPC_CLIENT = "tally_rls_load"
MODULES = "/usr/lib/nginx/modules"
NGINX = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
{user}
daemon off;
master_process off;  # one process, which dies with the benchmark
pid {place}/{name}.pid;
error_log {place}/{name}.log;
events {{ }}
http {{
  access_log off;
  keepalive_requests 10000000;
  client_body_temp_path {place}/{name}.body;
  proxy_temp_path {place}/{name}.proxy;
  fastcgi_temp_path {place}/{name}.fastcgi;
  uwsgi_temp_path {place}/{name}.uwsgi;
  scgi_temp_path {place}/{name}.scgi;
  {http}
}}
"""
HAPROXY = """
global
  nbthread 1
  {settings}
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend web
  bind {listen}
  {rules}
  http-request return status 200 content-type text/plain string "hello"
"""


class Door(NamedTuple):
    name: str
    beside: str | None  # the same proxy without a limit, where it is that its own name; None: the application asks by itself, and waits all of that time
    start: Callable  # (bench, name): the way to ask it
    asks: bool = True  # tallyd


def replaced(text, changes):
    """What is installed, with what is of this place; all of it must be there."""
    for old, new in changes.items():
        if old not in text:
            raise DemoError(f"{old!r} is not in what is installed any more")
        text = text.replace(old, new)
    return text


def file_name(name):
    return name.replace(" ", "-").replace(",", "")


def through(listen):
    """A request through a proxy: its key is in the query, and for who looks there in a header."""
    return http(listen, "GET /?k=KEY HTTP/1.1\r\nX-Tenant: KEY")


def start_nginx(bench, name, http_section, listen):
    file, config = file_name(name), bench.place.path / f"{file_name(name)}.conf"
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    config.write_text(NGINX.format(modules=MODULES, user=user, place=bench.place.path, name=file, http=http_section))
    bench.serve([bench.program("nginx"), "-e", bench.place.path / f"{file}.log", "-c", config], file, listen)
    return through(listen)


def nginx(section=lambda bench: "", location=""):
    """`section`: of http {}; `location`: the limit of the one that there is."""
    def start(bench, name):
        listen = bench.port()
        return start_nginx(bench, name, f"{section(bench)}\nserver {{ listen {listen}; location / {{ {location} empty_gif; }} }}", listen)
    return start


def by_lua(bench):
    return replaced((CONF / "nginx/tally.conf").read_text(), {"/etc/nginx/tally/": f"{CONF}/lua/", "/run/tallyd/tallyd.sock": bench.resp,
                                                              "deadline_ms = 50": "deadline_ms = 5000", '"open"': '"closed"'})


def kong(bench):
    """The plugin in nginx, with the tests' stand-in for what it calls of Kong."""
    declared = json.loads((CONF / "kong/kong.json").read_text())
    declared["plugins"][0]["config"] = {"socket": bench.resp, "deadline": 5000, "fault_tolerant": False,
                                        "rules": [{"name": "api", "limit_by": "header", "header_name": "X-Tenant", "window": "hour"}]}
    path = bench.place.path / "kong.json"
    path.write_text(json.dumps(declared))
    return (f'lua_package_path "{CONF}/?.lua;{CONF}/lua/?.lua;{ROOT}/tests/proxies/?.lua;;";\n'
            f'init_by_lua_block {{ stand_in = require("kong_stand_in").load("{path}") }}')


def auth_request(bench, name):
    listen = bench.port()
    text = replaced((CONF / "nginx/auth_request.conf").read_text(), {
        "unix:/run/tallyd/http.sock": f"unix:{bench.http}", "listen 127.0.0.1:8080": f"listen {listen}", "proxy_read_timeout 1s": "proxy_read_timeout 5s",
        "error_page 404 502 503 504 = @open;": "",  # who cannot be asked about is refused, and so seen
        "proxy_pass http://127.0.0.1:8000;": "set $k $arg_k; empty_gif;", "map $remote_addr": "map $k", "default $remote_addr": "default $k"})
    return start_nginx(bench, name, text, listen)


def haproxy(settings=lambda bench: "", rules=""):
    def start(bench, name):
        file, listen = file_name(name), bench.port()
        config = bench.place.path / f"{file}.cfg"
        config.write_text(HAPROXY.format(settings=settings(bench), rules=rules, listen=listen))
        bench.serve([bench.program("haproxy"), "-db", "-f", config], file, listen)
        return through(listen)
    return start


def haproxy_lua(bench):
    return f"""setenv TALLY_SOCKET {bench.resp}
  setenv TALLY_DEADLINE_MS 5000
  lua-prepend-path {CONF}/lua/?.lua
  lua-load-per-thread {CONF}/haproxy/tally_haproxy.lua"""


def auth(where) -> Kept:
    return http(where, "GET /v1/auth?rule=api&key=KEY HTTP/1.1")


def post(where) -> Kept:
    return http(where, "POST /v1/take HTTP/1.1", '{"rule": "api", "key": "KEY"}')


DOORS = [
    Door("nginx", "nginx", nginx(), asks=False),
    Door("nginx, limit_req", "nginx", nginx(lambda bench: "limit_req_zone $arg_k zone=keys:32m rate=1000000r/s;", "limit_req zone=keys burst=1000000 nodelay;"),
         asks=False),
    Door("nginx, tally by Lua", "nginx", nginx(by_lua, 'access_by_lua_block { tally:limit { { rule = "api", key = ngx.var.arg_k } } }')),
    Door("nginx, auth_request", "nginx", auth_request),
    Door("nginx, Kong's plugin", "nginx", nginx(kong, "access_by_lua_block { stand_in.access() } header_filter_by_lua_block { stand_in.header_filter() }")),
    Door("HAProxy", "HAProxy", haproxy(), asks=False),
    Door("HAProxy, stick table", "HAProxy", haproxy(rules="""stick-table type string len 32 size 1m expire 1m store http_req_rate(1m)
  http-request track-sc0 url_param(k)
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }"""), asks=False),
    Door("HAProxy, tally by Lua", "HAProxy", haproxy(haproxy_lua, """http-request set-var(txn.key) url_param(k)
  http-request lua.tally api=txn.key
  http-request return status 429 if { var(txn.tally) -m str limited }
  http-request return status 503 unless { var(txn.tally) -m found }
  http-after-response set-header RateLimit %[var(txn.tally_limits)] if { var(txn.tally) -m found }""")),
    Door("RESP, Unix socket", None, lambda bench, name: take(bench.resp, "api")),
    Door("RESP, TCP", None, lambda bench, name: take(bench.resp_tcp, "api")),
    Door("GET /v1/auth, Unix socket", None, lambda bench, name: auth(bench.http)),
    Door("GET /v1/auth, TCP", None, lambda bench, name: auth(bench.http_tcp)),
    Door("POST /v1/take, Unix socket", None, lambda bench, name: post(bench.http)),
    Door("POST /v1/take, TCP", None, lambda bench, name: post(bench.http_tcp)),
]
GRPC = Door("gRPC, Unix socket", None, lambda bench, name: Grpc(bench.servers, bench.rls, bench.tallyd.pid))
