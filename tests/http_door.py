"""tallyd's HTTP door for tests: a client, what comes back from bare bytes, and a daemon that serves it."""
import contextlib
import http.client
import json
import re
import socket

from processes import DAY, WAIT_S, Case

FIXED = {"window": DAY, "algorithm": "fixed_window"}
RULES = [{"name": "api", "limit": 100, **FIXED}, {"name": "big", "limit": 1000000, **FIXED}, {"name": "login", "limit": 5, **FIXED},
         {"name": "feed", "algorithm": "token_bucket", "rate": "1/h", "burst": 100}]
AUTH = "/v1/auth?rule={}&key={}"


class Http(http.client.HTTPConnection):
    """Of a Unix socket ("/PATH") or "HOST:PORT"; kept until it is closed."""

    def __init__(self, where):
        super().__init__("x", timeout=WAIT_S)
        self.sock = connect(where)

    def ask(self, target, body=None, method=None, headers=None):
        data = json.dumps(body) if isinstance(body, dict) else body
        self.request(method or ("GET" if body is None else "POST"), target, data, headers or {})
        self.reply = self.getresponse()
        return self.reply.status, self.reply.read().decode()

    def take(self, **question):
        status, text = self.ask("/v1/take", question)
        assert status == 200, text
        return json.loads(text)


def connect(where):
    if str(where).startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(where))
        except OSError:
            connection.close()
            raise
    else:
        host, port = where.rsplit(":", 1)
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(WAIT_S)
    return connection


def get(target, *fields):
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def read_all(connection):
    back = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            back += more
    return back


def exchange(where, data):
    """Sends it all, says that no more comes, and returns all that came back."""
    with connect(where) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def statuses(back):
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3})", back, re.M)]


class HttpCase(Case):
    def one(self, rules=RULES, **more):
        """A daemon alone, on a Unix socket and on TCP."""
        self.unix = str(self.folder / "http.sock")
        config = self.small(rules=rules, listen={"http": ["unix:" + self.unix, "127.0.0.1:0"]}, **more)
        daemon = self.start("-c", config).ready()
        self.tcp = re.search(r"serving HTTP address=(127\S+)", daemon.text()).group(1)
        return daemon

    def open(self, where):
        connection = Http(where)
        self.addCleanup(connection.close)
        return connection

    def raw(self, where):
        connection = connect(where)
        self.addCleanup(connection.close)
        return connection

    def metric(self, where, name):
        """The sum of all its series."""
        status, text = self.open(where).ask("/metrics")
        self.assertEqual(status, 200)
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))

    def until(self, condition):
        while not condition():  # each look is a question that the daemon answers
            pass
