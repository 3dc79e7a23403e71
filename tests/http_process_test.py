#!/usr/bin/env python3
"""The HTTP door of tallyd as a process: http_process_test.py TALLYD TALLY [TEST...]

Decisions, keep-alive, pipelines, limits shared by connections and hosts, waiting, slow and bad clients, draining, and that what is slow
elsewhere stops no decision.
"""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import unittest

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from http_door import AUTH, FIXED, RULES, Http, HttpCase, connect, exchange, get, read_all, statuses  # noqa: E402
from processes import WAIT_S, Plain, free_ports  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
STRICT = [{"name": "login", "limit": 5, "max_overcount": 0, "wait": "10s", "on_isolation": "closed", **FIXED},
          {"name": "soon", "limit": 5, "max_overcount": 0, "wait": "50ms", "on_isolation": "closed", **FIXED},
          {"name": "api", "limit": 3000, "max_overcount": "10%", **FIXED}]


class Decisions(HttpCase):
    def test_auth_answers_with_a_status_and_headers(self):
        daemon = self.one()
        for where, key in ((self.unix, "a"), (self.tcp, "b")):
            client = self.open(where)
            self.assertEqual([client.ask(AUTH.format("login", key))[0] for _ in range(7)], [204] * 5 + [403] * 2)
            self.assertEqual(client.ask(AUTH.format("login", key) + "&deny=429"), (429, ""))
            headers = client.reply.headers
            self.assertEqual(headers["RateLimit-Policy"], '"login";q=5;w=31622400')
            self.assertRegex(headers["RateLimit"], r'^"login";r=0;t=\d+$')
            self.assertEqual((headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]), ("5", "0"))
            self.assertEqual(headers["Retry-After"], headers["X-RateLimit-Reset"])
            self.assertRegex(headers["Date"], r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
            self.assertEqual(client.ask(AUTH.format("login", "other"))[0], 204)
            self.assertEqual(client.reply.headers["X-RateLimit-Remaining"], "4")
            self.assertIsNone(client.reply.headers["Retry-After"])
            client.ask(AUTH.format("login", key) + "&cost=0")
            self.assertEqual(client.reply.status, 403)
            Plain(daemon).ask("TALLY.RESET", "login", "other")
        self.assertEqual(self.open(self.unix).ask("/v1/auth", headers={"X-Tally-Rule": "login", "X-Tally-Key": "a"})[0], 403)
        self.assertEqual(daemon.end(), 0)

    def test_take_answers_with_json_and_counts_with_resp(self):
        daemon = self.one()
        client, redis = self.open(self.unix), Plain(daemon)
        reply = client.take(rule="api", key="k", cost=40)
        self.assertEqual((reply["allowed"], reply["limit"], reply["remaining"], reply["reason"], reply["rule"], reply["retry_after_ms"]),
                         (True, 100, 60, "admitted", "api", -1))
        self.assertEqual(redis.ask("TALLY.TAKE", "api", "k", 60)[:3], [0, 100, 0])
        reply = client.take(rule="api", key="k")
        self.assertEqual((reply["allowed"], reply["reason"]), (False, "over_limit"))
        self.assertGreater(reply["retry_after_ms"], 0)
        self.assertEqual(client.take(rule="feed", key="k", cost=101)["retry_after_ms"], -1)
        key = "café\n"
        client.take(rule="api", key=key)
        self.assertEqual(redis.ask("TALLY.PEEK", "api", key.encode())[2], 99)
        self.assertEqual(daemon.end(), 0)

    def test_a_list_takes_from_all_or_from_none(self):
        daemon = self.one()
        client = self.open(self.tcp)
        both = [{"rule": "login", "key": "k", "cost": 3}, {"rule": "api", "key": "k", "cost": 3}]
        first, second = (json.loads(client.ask("/v1/take", json.dumps(both))[1]) for _ in range(2))
        self.assertEqual((first["allowed"], first["refused"], [one["remaining"] for one in first["takes"]]), (True, -1, [2, 97]))
        self.assertEqual((second["allowed"], second["refused"], [one["remaining"] for one in second["takes"]]), (False, 0, [2, 97]))
        self.assertEqual([one["reason"] for one in second["takes"]], ["over_limit", "admitted"])
        self.assertEqual(daemon.end(), 0)

    def test_a_limit_holds_over_many_connections_that_ask_at_once(self):
        daemon = self.one()
        admitted = []

        def ask(where):
            client = Http(where)
            admitted.append(sum(client.ask(AUTH.format("api", "k"))[0] == 204 for _ in range(50)))
            client.close()
        threads = [threading.Thread(target=ask, args=(self.unix if i % 2 else self.tcp,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sum(admitted), 100)
        self.assertEqual(daemon.end(), 0)

    def test_requests_in_a_pipeline_are_answered_in_order_whatever_they_are(self):
        daemon = self.one()
        targets = [AUTH.format("login", "k"), "/healthz", "/metrics", AUTH.format("login", "k"), "/none", "/v1/stats", "/v1/rules"]
        back = exchange(self.unix, b"".join(map(get, targets)) * 3)
        self.assertEqual(statuses(back), [204, 200, 200, 204, 404, 200, 200] * 2 + [204, 200, 200, 403, 404, 200, 200])
        many = exchange(self.tcp, get(AUTH.format("big", "k")) * 2000 + get("/healthz", "Connection: close") + get("/healthz"))
        self.assertEqual(statuses(many), [204] * 2000 + [200])
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "big", "k")[2], 998000)
        self.assertEqual(daemon.end(), 0)

    def test_one_byte_at_a_time_is_as_good_as_all_at_once(self):
        daemon = self.one()
        body = b'{"rule": "api", "key": "k"}'
        data = (get(AUTH.format("api", "k")) + b"POST /v1/take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
                b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:])) + b"0\r\n\r\n")
        with connect(self.tcp) as connection:
            for i in range(len(data)):
                connection.sendall(data[i:i + 1])
            connection.shutdown(socket.SHUT_WR)
            back = read_all(connection)
        self.assertEqual(statuses(back), [204, 200])
        self.assertEqual(json.loads(back[back.index(b"{"):])["remaining"], 98)
        self.assertEqual(daemon.end(), 0)

    def test_a_connection_is_kept_unless_somebody_says_otherwise(self):
        daemon = self.one()
        with connect(self.unix) as kept:
            for _ in range(3):
                kept.sendall(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                self.assertIn(b"Connection: keep-alive\r\n", kept.recv(4096))
            kept.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            self.assertIn(b"Connection: close\r\n", read_all(kept))
        self.assertEqual(statuses(exchange(self.unix, get("/healthz", "Connection: close") + get("/healthz"))), [200])
        self.assertEqual(daemon.end(), 0)


class Fleets(HttpCase):
    def setUp(self):
        super().setUp()
        self.ports = free_ports(3)
        self.peers = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.config = self.small(rules=STRICT, cluster={"sync_interval": "20ms", "isolation_after": "1h"})

    def node(self, i):
        return self.start("-c", self.config, "--bind", f"127.0.0.1:{self.ports[i]}", "--peers", self.peers,
                          "--listen-http", f"unix:{self.folder}/http-{i}", name=f"n{i}")

    def http(self, i):
        return self.open(f"{self.folder}/http-{i}")

    def test_three_daemons_share_a_strict_limit_exactly_over_http(self):
        nodes = [self.node(i) for i in range(3)]
        for node in nodes:
            node.ready()
        clients = [self.http(i) for i in range(3)]
        got = [client.ask(AUTH.format("login", "bob"))[0] for client in clients * 5]
        self.assertEqual((got.count(204), got.count(403)), (5, 10), got)
        self.assertEqual(clients[0].take(rule="login", key="bob")["reason"], "over_limit")
        self.assertEqual(clients[0].ask("/v1/reset", {"rule": "login", "key": "bob"}), (204, ""))
        self.assertEqual(clients[0].ask(AUTH.format("login", "bob"))[0], 204)
        told = json.loads(clients[1].ask("/v1/explain?rule=login&key=bob")[1])
        self.assertEqual((told["rule"], told["role"] in ("owner", "lessee")), ("login", True))
        self.assertEqual(set(json.loads(clients[2].ask("/v1/peers")[1])), set(self.peers.split(",")))
        self.assertIn("datagrams_in", json.loads(clients[2].ask("/v1/stats")[1]))
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_a_request_that_waits_holds_up_nobody_else(self):
        node = self.node(0).ready()  # no other is there: a strict rule has nothing to give
        waiting = self.raw(f"{self.folder}/http-0")
        waiting.sendall(get(AUTH.format("login", "bob")) + get(AUTH.format("api", "bob")) + get("/healthz"))
        other = self.http(0)
        self.until(lambda: (stats := json.loads(other.ask("/v1/stats")[1]))["waiting"] == 1 and stats["admitted"] == 1)
        self.assertEqual(other.ask(AUTH.format("api", "bob"))[0], 204)
        self.assertEqual(other.ask("/metrics")[0], 200)
        others = [self.node(i) for i in (1, 2)]  # now they come, and the wait ends
        back = b""
        while len(statuses(back)) < 3 or not back.endswith(b"ok\n"):
            back += waiting.recv(65536)
        self.assertEqual(statuses(back), [204, 204, 200])
        self.assertEqual([each.end() for each in [node, *others]], [0, 0, 0])

    def test_a_wait_ends_with_no_grant_at_its_deadline(self):
        node = self.node(0).ready()
        client = self.http(0)
        reply = client.take(rule="soon", key="bob")
        self.assertEqual((reply["allowed"], reply["reason"], reply["retry_after_ms"]), (False, "no_grant", 20))
        self.assertEqual(client.ask(AUTH.format("soon", "bob"))[0], 403)
        self.assertEqual(client.reply.headers["Retry-After"], "1")
        self.assertEqual(node.end(), 0)

    def test_while_it_drains_nobody_new_comes_in_and_what_waits_is_kept(self):
        node = self.node(0).ready()
        other = self.http(0)
        waiting = self.raw(f"{self.folder}/http-0")
        waiting.sendall(get(AUTH.format("login", "bob")))
        self.until(lambda: json.loads(other.ask("/v1/stats")[1])["waiting"] == 1)
        node.process.send_signal(signal.SIGTERM)
        with self.assertRaises((FileNotFoundError, ConnectionRefusedError)):
            while True:
                connect(f"{self.folder}/http-0").close()
        self.assertIsNone(node.process.poll())
        waiting.setblocking(False)
        self.assertRaises(BlockingIOError, waiting.recv, 1)  # neither answered nor closed
        waiting.close()  # nothing waits any more
        self.assertEqual(node.ended(), 0)

    def test_who_goes_while_he_waits_is_not_charged(self):
        node = self.node(0).ready()
        other = self.http(0)
        waiting = self.raw(f"{self.folder}/http-0")
        waiting.sendall(get(AUTH.format("login", "bob") + "&cost=5"))
        self.until(lambda: json.loads(other.ask("/v1/stats")[1])["waiting"] == 1)
        waiting.close()
        self.until(lambda: json.loads(other.ask("/v1/stats")[1])["waiting"] == 0)
        others = [self.node(i) for i in (1, 2)]
        self.assertEqual(other.ask(AUTH.format("login", "bob") + "&cost=5")[0], 204)
        self.assertEqual([each.end() for each in [node, *others]], [0, 0, 0])


class Operators(HttpCase):
    def test_what_changes_the_state_is_served_on_the_unix_socket_alone(self):
        daemon = self.one()
        tcp, unix = self.open(self.tcp), self.open(self.unix)
        for path, body in (("/v1/reset", {"rule": "login", "key": "k"}), ("/v1/reload", "")):
            status, text = tcp.ask(path, body)
            self.assertEqual((status, json.loads(text)["status"], tcp.reply.headers["Content-Type"]), (403, 403, "application/problem+json"))
            self.assertEqual(unix.ask(path, body), (204, ""))
        self.assertEqual(daemon.end(), 0)

    def test_a_reload_is_done_or_says_what_is_wrong(self):
        daemon = self.one(rules=[{"name": "api", "limit": 1, **FIXED}])
        client = self.open(self.unix)
        self.assertEqual([client.ask(AUTH.format("api", "k"))[0] for _ in range(2)], [204, 403])
        path = self.folder / "tallyd.json"
        config = json.loads(path.read_text())
        config["rules"][0]["limit"] = 3
        path.write_text(json.dumps(config))
        self.assertEqual(client.ask("/v1/reload", ""), (204, ""))
        self.assertEqual([client.ask(AUTH.format("api", "k"))[0] for _ in range(3)], [204, 204, 403])
        path.write_text("{")
        status, text = client.ask("/v1/reload", "")
        self.assertEqual(status, 409)
        self.assertIn("nothing was changed: ", json.loads(text)["detail"])
        self.assertEqual(daemon.end(), 0)

    def test_facts_are_those_of_resp(self):
        daemon = self.one()
        client, redis = self.open(self.tcp), Plain(daemon)
        rules = json.loads(client.ask("/v1/rules")[1])
        self.assertEqual((list(rules), rules["login"]["limit"]), ([*(rule["name"] for rule in RULES), "(inline)"], 5))
        self.assertEqual(json.loads(client.ask("/v1/peers")[1]), {})
        self.assertEqual(list(json.loads(client.ask("/v1/stats")[1])), list(redis.stats()))
        told = json.loads(client.ask("/v1/explain?rule=login&key=k")[1])
        self.assertEqual((told["role"], told["reason"]), ("alone", "admitted: 5 of 5 left"))
        client.take(rule="login", key="k", cost=2)
        told = json.loads(client.ask("/v1/explain?rule=login&key=k")[1])  # what is used, without what is asked here
        self.assertEqual((told["used_here"], told["used_fleet"], told["reason"]), (2, 2, "admitted: 3 of 5 left"))
        client.take(rule="login", key="k", cost=3)
        told = json.loads(client.ask("/v1/explain?rule=login&key=k")[1])
        self.assertEqual((told["used_here"], told["reason"].split(";")[0]), (5, "limited: the limit of 5 is used up"))
        self.assertEqual(daemon.end(), 0)

    def test_metrics_pass_promtool_and_tell_the_protocols_apart(self):
        daemon = self.one()
        client = self.open(self.unix)
        client.ask(AUTH.format("login", "k"))
        Plain(daemon).ask("PING")
        exchange(self.unix, b"nonsense\r\n\r\n")
        text = client.ask("/metrics")[1]
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=WAIT_S, check=False)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        self.assertIn('\ntallyd_requests_total{protocol="http"} 2\n', text)
        self.assertIn('\ntallyd_requests_total{protocol="resp"} 1\n', text)
        self.assertIn('\ntallyd_errors_total{kind="protocol"} 1\n', text)
        self.assertRegex(text, r'\ntallyd_connections\{protocol="http"\} [12]\n')
        self.assertEqual(daemon.end(), 0)


class Bad(HttpCase):
    def test_what_is_wrong_gets_its_status_and_ends_only_its_own_connection(self):
        daemon = self.one()
        other = self.open(self.tcp)
        post = b"POST /v1/take HTTP/1.1\r\nHost: x\r\n"
        for data, status in [(b"nonsense\r\n\r\n", 400), (b"*1\r\n$4\r\nPING\r\n", 400), (b"\x00\xff\r\n\r\n", 400), (b"GET / HTTP/1.1\r\n\r\n", 400),
                             (b"GET / HTTP/2.0\r\n\r\n", 505), (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501), (get("/", "X: " + "x" * 9000), 431),
                             (b"GET /" + b"x" * 100000, 414), (post + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000, 413),
                             (post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get("/healthz"), 400),
                             (post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400), (post + b"Transfer-Encoding : chunked\r\n\r\n", 400),
                             (post + b"Transfer-Encoding: gzip\r\n\r\n", 501), (post + b"Expect: wonders\r\n\r\n", 417), (b"GET / HTTP/1.1\nHost: x\n\n", 400)]:
            for where in (self.unix, self.tcp):
                with self.subTest(data[:60], where=where):
                    back = exchange(where, data)
                    self.assertEqual(statuses(back), [status], back)
                    self.assertIn(b"Connection: close\r\n", back)
                    self.assertIn(b"application/problem+json", back)
            self.assertEqual(other.ask("/healthz"), (200, "ok\n"))
        for target, body, status, detail in [
                ("/v1/take", {"rule": "lgoin", "key": "k"}, 404, "no rule 'lgoin'; did you mean 'login'?"), ("/v1/take", "{", 400, "the body is not JSON: see byte 2"),
                ("/v1/auth?rule=login", None, 400, "a key must have 1 to 1024 bytes, got 0"), ("/v1/atuh", None, 404, "did you mean '/v1/auth'?"),
                ("/v1/take", None, 405, "POST only")]:
            with self.subTest(target, body=body):
                got, text = other.ask(target, body)  # the connection goes on
                self.assertEqual((got, json.loads(text)["status"]), (status, status))
                self.assertIn(detail, json.loads(text)["detail"])
        self.assertEqual(self.metric(self.tcp, "tallyd_decisions_total"), 1)  # the unknown rule
        self.assertEqual(daemon.end(), 0)

    def test_a_refusal_arrives_although_more_was_on_its_way(self):
        daemon = self.one()
        with connect(self.tcp) as connection:
            connection.sendall(b"POST /v1/take HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
            back = b""
            while b"\r\n\r\n" not in back:
                back += connection.recv(4096)
            for _ in range(64):
                connection.sendall(b"x" * 65536)  # it goes on sending what is not wanted
            connection.shutdown(socket.SHUT_WR)
            self.assertEqual(statuses(back + read_all(connection)), [413])
        self.assertEqual(daemon.end(), 0)

    def test_resp_clients_and_http_clients_on_each_others_sockets_are_told(self):
        daemon = self.one()
        self.assertEqual(statuses(exchange(self.unix, b"PING\r\n")), [400])
        self.assertEqual(exchange(daemon.socket, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"), b"-ERR this port speaks RESP, not HTTP\r\n")
        self.assertEqual(daemon.end(), 0)

    def test_connections_of_both_protocols_are_limited_together(self):
        daemon = self.one(limits={"connections": 2})
        kept, redis = self.open(self.unix), Plain(daemon)
        self.assertEqual((kept.ask("/healthz")[0], redis.ask("PING")), (200, "PONG"))
        with connect(self.tcp) as third:
            back = read_all(third)
        self.assertEqual(statuses(back), [503])
        self.assertIn(b"Retry-After: 1\r\n", back)
        with daemon.connect() as fourth:
            self.assertEqual(fourth.recv(100), b"-ERR max number of clients reached\r\n")
        kept.close()
        redis.until(lambda stats: stats["connections"] == 1)
        self.assertEqual(self.open(self.unix).ask("/healthz")[0], 200)
        self.assertEqual(redis.stats()["connections_full"], 2)
        self.assertEqual(daemon.end(), 0)


class Slow(HttpCase):
    def test_slow_clients_are_cut_off_and_nobody_else_is(self):
        daemon = self.one(limits={"http_idle": "1s", "pipeline_bytes": 4096})
        nothing, head, body, chunk, deaf = (self.raw(self.tcp) for _ in range(5))
        idle = self.open(self.unix)
        head.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        body.sendall(b"POST /v1/take HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        chunk.sendall(get("/healthz") + b"POST /v1/take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{")
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.send(get("/") * 10)  # and reads nothing of what comes
        self.assertEqual(idle.ask("/healthz"), (200, "ok\n"))
        self.assertEqual(idle.sock.recv(100), b"")  # it had its second
        self.assertEqual(nothing.recv(100), b"")
        self.assertEqual(statuses(read_all(head)), [408])
        self.assertEqual(statuses(read_all(body)), [408])
        self.assertEqual(statuses(read_all(chunk)), [200, 408])
        redis = Plain(daemon)
        redis.until(lambda stats: stats["slow_client"] == 4 and stats["connections"] == 1)
        deaf.setblocking(True)
        deaf.settimeout(WAIT_S)
        self.assertNotIn(408, statuses(read_all(deaf)))
        self.assertEqual(daemon.end(), 0)

    def test_who_asks_again_in_time_is_not_cut_off(self):
        daemon = self.one(limits={"http_idle": "1s"})
        lasting = self.open(self.unix)
        for _ in range(3):  # each of the others lives as long as an idle connection may
            idle = self.raw(self.unix)
            idle.setblocking(False)
            ended = False
            while not ended:
                self.assertEqual(lasting.ask("/healthz")[0], 200)
                with contextlib.suppress(BlockingIOError):
                    ended = idle.recv(1) == b""
        self.assertEqual(daemon.end(), 0)


class Ends(HttpCase):
    def test_sigterm_answers_what_is_there_and_ends_with_0(self):
        daemon = self.one()
        client = self.raw(self.unix)
        client.sendall(get("/healthz"))
        self.assertEqual(statuses(client.recv(4096)), [200])
        daemon.process.send_signal(signal.SIGSTOP)
        client.sendall(get(AUTH.format("api", "k")) * 50)  # lies there when the signal comes
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGCONT)
        back = read_all(client)
        self.assertEqual(statuses(back), [204] * 50)
        self.assertIn(b"X-RateLimit-Remaining: 50\r\n", back)
        self.assertEqual(daemon.ended(), 0)
        self.assertFalse(os.path.exists(self.unix))


@contextlib.contextmanager
def stopped(pid, thread_name):
    """One thread of a process that we started, stopped as a debugger does it."""
    [thread] = [int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == thread_name]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt, detach, wall = 0x4206, 0x4207, 17, 0x40000000
    if libc.ptrace(seize, thread, None, None) != 0:
        raise unittest.SkipTest(f"no ptrace here: {os.strerror(ctypes.get_errno())}")
    libc.ptrace(interrupt, thread, None, None)
    os.waitpid(thread, wall)
    try:
        yield
    finally:
        libc.ptrace(detach, thread, None, None)


class Beside(HttpCase):
    def test_while_the_admin_thread_stands_still_scrapes_wait_and_nothing_else_does(self):
        daemon = self.one()
        scraper, client = self.raw(self.tcp), self.open(self.tcp)
        self.assertEqual(client.ask("/metrics")[0], 200)  # so the thread runs, and has its name
        with stopped(daemon.process.pid, "admin"):
            scraper.sendall(get("/metrics") + get("/healthz"))
            for _ in range(1000):
                self.assertEqual(client.ask(AUTH.format("big", "k"))[0], 204)
            for target in ("/healthz", "/readyz", "/", "/v1/rules", "/v1/stats", "/v1/explain?rule=big&key=k"):
                self.assertEqual(client.ask(target)[0], 200, target)
            scraper.setblocking(False)
            self.assertRaises(BlockingIOError, scraper.recv, 1)
            scraper.setblocking(True)
            scraper.settimeout(WAIT_S)
        back = b""
        while not back.endswith(b"\r\n\r\nok\n"):
            back += scraper.recv(65536)
        self.assertEqual(statuses(back), [200, 200])
        self.assertEqual(daemon.end(), 0)

    def test_scrapes_during_load_lose_no_decision(self):
        daemon = self.one()
        done = threading.Event()

        def scrape():
            scraper = Http(self.tcp)
            while not done.is_set():
                assert scraper.ask("/metrics")[0] == 200
            scraper.close()
        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            for _ in range(20):
                self.assertEqual(statuses(exchange(self.unix, get(AUTH.format("big", "k")) * 1000)), [204] * 1000)
        finally:
            done.set()
            thread.join()
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "big", "k")[2], 980000)
        self.assertEqual(daemon.end(), 0)


class Documentation(HttpCase):
    def test_the_examples_of_the_page_are_what_a_shell_shows(self):
        """Each "$ curl ..." of docs/http.md against a daemon with the page's rules; the lines below it are what it prints."""
        page = (ROOT / "docs" / "http.md").read_text()
        daemon = self.one(rules=[{"name": "api", "limit": 100, "window": "1m", "algorithm": "fixed_window"},
                                 {"name": "login", "limit": 5, "window": "15m", "algorithm": "fixed_window"}])
        # What differs from one run to the next: the time, and how long it is until a window ends.
        varies = [(r"Date: .*", "Date: *"), (r";t=\d+", ";t=*"), (r"(Reset|After): \d+", r"\1: *"), (r'_ms":\d+', '_ms":*')]
        count = 0
        for block in re.findall(r"```\n(\$ curl.*?)```", page, re.S):
            for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
                got = subprocess.run(["sh", "-c", command.replace("/run/tallyd/http.sock", self.unix)], capture_output=True, text=True,
                                     timeout=WAIT_S, check=False).stdout.replace("\r", "")
                for pattern, word in varies:
                    got, shown = re.sub(pattern, word, got), re.sub(pattern, word, shown)
                self.assertEqual(shown.rstrip(), got.rstrip(), command)
                count += 1
        self.assertGreater(count, 4)
        self.assertEqual(daemon.end(), 0)

    def test_the_page_lists_the_endpoints_that_there_are(self):
        page = (ROOT / "docs" / "http.md").read_text()
        table = re.search(r"^\| endpoint \|.*?\n\n", page, re.M | re.S).group(0)
        daemon = self.one()
        status, text = self.open(self.unix).ask("/" + "q" * 40)  # like none of them, so it is told all
        self.assertEqual(status, 404)
        there_are = json.loads(text)["detail"].split("there are ")[1].split(", ")
        self.assertEqual(sorted(re.findall(r"`(?:GET|POST) (/[^?` ]*)", table)), sorted(there_are))
        self.assertEqual(daemon.end(), 0)


if __name__ == "__main__":
    processes.main(sys.argv)
