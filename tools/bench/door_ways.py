"""How a door is asked, by one client, one question after the other; each way says what the times of its answers were."""
import json
import socket
import subprocess
import time

from servers import DemoError

WARM_UP = 200        # the first questions of each measurement are not counted
GRPC_CALL_S = 80e-6  # about what a call takes, so that as many are made as there are keys


def percentiles(times_us):
    times = sorted(times_us)
    return {"p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100]}


def connect(where):
    """`where`: "HOST:PORT", or a Unix socket's path."""
    if where.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(where)
        return connection
    host, port = where.split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Kept:
    """One connection that is kept. `question`: the bytes that ask for a key; `whole`: whether an answer is all there, or ValueError where it is not the right one."""

    def __init__(self, where, question, whole):
        self.where, self.question, self.whole = where, question, whole

    def measure(self, keys):
        """The median and 99th percentile of what was asked after the warm-up, from sending to the last byte of the answer."""
        questions = [self.question(key) for key in keys]
        with connect(self.where) as connection:
            return percentiles([self._exchange(connection, question) for question in questions][WARM_UP:])

    def _exchange(self, connection, question):
        data, begun = b"", time.perf_counter_ns()
        connection.sendall(question)
        while True:
            more = connection.recv(65536)
            ended = time.perf_counter_ns()
            data += more
            try:
                if self.whole(data):
                    return (ended - begun) / 1000
            except ValueError as wrong:
                raise DemoError(f"{self.where} answered {data[:200]!r}") from wrong
            if not more:
                raise DemoError(f"{self.where} closed the connection after {data[:200]!r}")


def http(where, head, body=""):
    """A request with every KEY in it replaced; all answers are to be 2xx. `head`: without the empty line."""
    def question(key):
        sent = body.replace("KEY", str(key))
        length = f"Content-Length: {len(sent)}\r\n" if sent else ""
        return f"{head.replace('KEY', str(key))}\r\nHost: bench\r\n{length}\r\n{sent}".encode()

    def whole(data):
        head, end, rest = data.partition(b"\r\n\r\n")
        if not data.startswith(b"HTTP/1.1 2"[:len(data)]):
            raise ValueError("not admitted")
        _, named, length = head.lower().partition(b"content-length:")
        return bool(end) and len(rest) >= (int(length.split(b"\r\n", 1)[0]) if named else 0)
    return Kept(where, question, whole)


def take(where, rule):
    """TALLY.TAKE over RESP; all are to be admitted."""
    def question(key):
        words = ["TALLY.TAKE", rule, str(key)]
        return "".join([f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]).encode()

    def whole(data):
        if not data.startswith(b"*6\r\n:0\r\n"[:len(data)]):
            raise ValueError("not admitted")
        return data.count(b"\r\n") == 7
    return Kept(where, question, whole)


class Grpc:
    """ShouldRateLimit, by the client of rls.sh: its keys are as many, in turn."""

    def __init__(self, servers, path, pid):
        self.servers, self.path, self.pid = servers, path, pid

    def measure(self, keys):
        words = [self.servers.place.program("tally_rls_load"), self.path, self.pid, 1, max(len(keys) * GRPC_CALL_S, 0.05), len(keys)]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise DemoError(done.stderr.strip())
        figures = json.loads(done.stdout)
        return {"p50_us": figures["batch_p50_us"], "p99_us": figures["batch_p99_us"]}
