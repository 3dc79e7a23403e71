#!/usr/bin/env python3
"""Envoy's rate limit service by @grpc/grpc-js: rls_process_test.py TALLYD TALLY MODULES [TEST...]

MODULES is the folder with node_modules (tests/clients/install.py). What Envoy sends and expects is in tests/clients/proto.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports  # noqa: E402
from redis_server import Redis  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
OK, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 0, 3, 5, 8, 12, 14  # of gRPC
LIMIT_METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"


class Client:
    """One node process that calls."""

    def __init__(self, case, target):
        node = shutil.which("node")
        if node is None:
            raise AssertionError("node is not installed (Debian: apt-get install nodejs npm)")
        self.process = subprocess.Popen([node, str(HERE / "clients" / "rls_client.mjs"), PROGRAMS["modules"], target],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ids, self.early = 0, {}
        case.addCleanup(self.end)

    def begin(self, **line):
        self.ids += 1
        self.process.stdin.write(json.dumps({"id": self.ids, **line}) + "\n")
        self.process.stdin.flush()
        return self.ids

    def ended(self, which):
        while which not in self.early:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(f"the client ended with {self.process.wait(WAIT_S)}")
            reply = json.loads(line)
            self.early[reply["id"]] = reply["replies"]
        return self.early.pop(which)

    def all(self, requests, channels=1):
        return self.ended(self.begin(calls=requests, channels=channels))

    def one(self, **request):
        [reply] = self.all([request])
        return reply

    def ask(self, *descriptors, domain="edge", hits_addend=0):
        """The response to descriptors, each as its entries or as a whole."""
        whole = [d if isinstance(d, dict) else {"entries": entries(d)} for d in descriptors]
        reply = self.one(domain=domain, descriptors=whole, hits_addend=hits_addend)
        if reply["code"] != OK:
            raise AssertionError(reply)
        return reply["response"]

    def code(self):
        """gRPC's, of a call that any daemon here lets through."""
        return self.one(domain="edge", descriptors=[{"entries": entries([("wide", "code")])}])["code"]

    def health(self, service=""):
        return self.ended(self.begin(health=service))[0]

    def raw(self, data, path=LIMIT_METHOD):
        return self.ended(self.begin(raw=data.hex(), path=path))[0]

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(WAIT_S)
            finally:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


def entries(pairs):
    return [{"key": key, "value": value} for key, value in pairs]


def address(value, **more):
    return {"entries": entries([("remote_address", value)]), **more}


def rule(name, limit, *descriptors, **more):
    return {"name": name, "limit": limit, "window": DAY, "algorithm": "fixed_window",
            "match": {"domain": "edge", "descriptors": [{"key": key, **({"value": value} if value else {})} for key, value in descriptors]},
            **more}


RULES = [rule("per-address", 10, ("remote_address", None)), rule("login", 3, ("route", "login")),
         rule("login-by-address", 2, ("route", "login"), ("remote_address", None)),
         rule("shared", 50, ("shared", None)), rule("wide", 1000, ("wide", None)),
         rule("minute", 10, ("minute", None), window="1m"), rule("watched", 1, ("watched", None), shadow=True)]


def codes(response):
    return [response["overall_code"]] + [status["code"] for status in response["statuses"]]


def left(response):
    return [status["limit_remaining"] for status in response["statuses"]]


def headers(response):
    return {header["key"]: header["value"] for header in response["response_headers_to_add"]}


class Door(Case):
    def serve(self, *more, rules=None, name=None, **config):
        path = self.small(rules=RULES if rules is None else rules, **config)
        self.path = str(self.folder / "rls.sock")
        return self.start("-c", path, "--listen-rls", f"unix:{self.path}", "--listen-http", "127.0.0.1:0", *more, name=name).ready()

    def client(self, target=None):
        return Client(self, target or f"unix:{self.path}")

    def metrics(self, daemon):
        text = urllib.request.urlopen(f"http://{daemon.http()}/metrics", timeout=WAIT_S).read().decode()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


class Deciding(Door):
    def test_one_descriptor_is_let_through_up_to_its_limit_and_its_status_and_headers_tell(self):
        daemon = self.serve()
        client = self.client()
        first = client.ask([("remote_address", "10.0.0.1")])
        self.assertEqual((codes(first), left(first)), (["OK", "OK"], [9]))
        status = first["statuses"][0]
        self.assertEqual(status["current_limit"], {"name": "per-address", "requests_per_unit": 10, "unit": "UNKNOWN"})
        reset = status["duration_until_reset"]["seconds"]
        self.assertTrue(0 < reset <= 366 * 86400, first)
        told = headers(first)
        self.assertEqual(told["RateLimit-Policy"], '"per-address";q=10;w=31622400')
        self.assertRegex(told["RateLimit"], r'^"per-address";r=9;t=\d+$')
        self.assertEqual((told["X-RateLimit-Limit"], told["X-RateLimit-Remaining"]), ("10", "9"))
        self.assertIn(int(told["X-RateLimit-Reset"]), (reset, reset + 1))
        self.assertNotIn("Retry-After", told)
        self.assertEqual([codes(client.ask([("remote_address", "10.0.0.1")]))[0] for _ in range(10)], ["OK"] * 9 + ["OVER_LIMIT"])
        over = client.ask([("remote_address", "10.0.0.1")])
        self.assertEqual((codes(over), left(over)), (["OVER_LIMIT", "OVER_LIMIT"], [0]))
        self.assertGreaterEqual(int(headers(over)["Retry-After"]), 1)
        self.assertEqual(left(client.ask([("remote_address", "10.0.0.2")])), [9])  # another key
        self.assertEqual(daemon.end(), 0)

    def test_several_descriptors_are_taken_all_or_nothing(self):
        daemon = self.serve()
        client = self.client()
        both = ([("remote_address", "10.0.0.1")], [("route", "login"), ("remote_address", "10.0.0.1")])
        self.assertEqual([codes(client.ask(*both)) for _ in range(3)],
                         [["OK", "OK", "OK"]] * 2 + [["OVER_LIMIT", "OK", "OVER_LIMIT"]])
        self.assertEqual(left(client.ask(address("10.0.0.1", hits_addend={"value": 0}))), [8])
        self.assertEqual(daemon.end(), 0)

    def test_what_matches_no_rule_is_let_through_beside_what_does(self):
        daemon = self.serve()
        response = self.client().ask([("color", "red")], [("route", "login")])
        self.assertEqual(codes(response), ["OK", "OK", "OK"])
        self.assertIsNone(response["statuses"][0]["current_limit"])
        self.assertEqual(response["statuses"][1]["current_limit"]["name"], "login")
        self.assertEqual(daemon.end(), 0)

    def test_hits_are_those_of_the_request_or_of_the_descriptor_and_a_descriptors_0_is_a_peek(self):
        daemon = self.serve()
        client = self.client()
        self.assertEqual(left(client.ask([("remote_address", "a")], hits_addend=4)), [6])
        self.assertEqual(left(client.ask(address("a", hits_addend={"value": 3}), hits_addend=4)), [3])
        for _ in range(3):
            self.assertEqual(left(client.ask(address("a", hits_addend={"value": 0}), hits_addend=4)), [3])
        too_many = client.ask(address("a", hits_addend={"value": 2**63}))
        self.assertEqual((codes(too_many)[0], left(too_many)), ("OVER_LIMIT", [3]))
        self.assertNotIn("Retry-After", headers(too_many))  # it never fits
        self.assertEqual(left(client.ask(address("a", hits_addend={"value": 3}))), [0])
        peek = client.ask(address("a", hits_addend={"value": 0}), [("route", "login")])
        self.assertEqual(codes(peek), ["OVER_LIMIT", "OVER_LIMIT", "OK"])  # as one more would be
        self.assertEqual(left(client.ask([("route", "login")])), [2])      # and nothing was taken beside it
        self.assertEqual(daemon.end(), 0)

    def test_a_limit_in_the_request_takes_the_place_of_the_rules(self):
        daemon = self.serve()
        client = self.client()
        minute = {"entries": entries([("minute", "a")]), "limit": {"requests_per_unit": 3, "unit": "MINUTE"}, "hits_addend": {"value": 3}}
        response = client.ask(minute)
        self.assertEqual((codes(response)[0], left(response)), ("OK", [0]))
        self.assertEqual(response["statuses"][0]["current_limit"], {"name": "minute", "requests_per_unit": 3, "unit": "MINUTE"})
        # No rule has that window: a bucket under the inline rule, which CL.THROTTLE sees by its key.
        hourly = {"entries": entries([("color", "red")]), "limit": {"requests_per_unit": 5, "unit": "HOUR"}}
        self.assertEqual([codes(client.ask(hourly))[0] for _ in range(6)], ["OK"] * 5 + ["OVER_LIMIT"])
        self.assertEqual(client.ask(hourly)["statuses"][0]["current_limit"],
                         {"name": "(inline)", "requests_per_unit": 5, "unit": "HOUR"})
        self.assertEqual(Plain(daemon).ask("CL.THROTTLE", "edge|color=red|5/hour", 4, 5, 3600, 0)[1:3], [5, 0])
        closed = {"entries": entries([("color", "blue")]), "limit": {"requests_per_unit": 0, "unit": "SECOND"}}
        self.assertEqual(codes(client.ask(closed, [("remote_address", "b")])), ["OVER_LIMIT", "OVER_LIMIT", "OK"])
        self.assertEqual(left(client.ask([("remote_address", "b")])), [9])
        self.assertEqual(daemon.end(), 0)

    def test_a_rule_in_shadow_never_refuses(self):
        daemon = self.serve()
        client = self.client()
        self.assertEqual([codes(client.ask([("watched", "a")]))[0] for _ in range(3)], ["OK"] * 3)
        self.assertEqual(self.metrics(daemon)['tallyd_decisions_total{rule="watched",outcome="shadow_limited"}'], 2)
        self.assertEqual(daemon.end(), 0)

    def test_of_200_calls_at_once_exactly_the_limit_is_let_through(self):
        daemon = self.serve(workers=4)
        client = self.client()
        for channels, key in ((1, "one"), (8, "eight")):
            wide = {"entries": entries([("wide", key)])}
            shared = {"entries": entries([("shared", key)])}
            # Either order: what is refused after something was taken gives it back.
            requests = [{"domain": "edge", "descriptors": [wide, shared] if i % 2 else [shared, wide]} for i in range(200)]
            replies = client.all(requests, channels)
            self.assertEqual({reply["code"] for reply in replies}, {OK})
            self.assertEqual(sum(reply["response"]["overall_code"] == "OK" for reply in replies), 50)
            peek = client.ask(*[dict(one, hits_addend={"value": 0}) for one in (wide, shared)])
            self.assertEqual((left(peek), codes(peek)), ([950, 0], ["OVER_LIMIT", "OK", "OVER_LIMIT"]))
        values = self.metrics(daemon)
        self.assertEqual(values['tallyd_requests_total{protocol="grpc"}'], 402)
        self.assertEqual(values['tallyd_connections{protocol="grpc"}'], 8)
        self.assertEqual(daemon.end(), 0)


class Serving(Door):
    def test_health_is_told_and_nothing_is_said_about_what_is_served(self):
        daemon = self.serve()
        client = self.client()
        for service in ("", "envoy.service.ratelimit.v3.RateLimitService"):
            self.assertEqual(client.health(service)["response"], {"status": "SERVING"})
        self.assertEqual(client.health("another")["code"], NOT_FOUND)
        for version in ("v1", "v1alpha"):
            reply = client.raw(b"", f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
            self.assertEqual(reply["code"], UNIMPLEMENTED)
        self.assertEqual(client.raw(b"", "/envoy.service.ratelimit.v2.RateLimitService/ShouldRateLimit")["code"], UNIMPLEMENTED)
        self.assertEqual(daemon.end(), 0)

    def test_it_listens_on_tcp_and_on_unix_sockets_with_their_mode(self):
        daemon = self.serve("--listen-rls", f"unix:{self.folder}/second.sock?mode=0600", "--listen-rls", "127.0.0.1:0")
        port = int(re.search(r"serving gRPC address=127\.0\.0\.1:(\d+)", daemon.text())[1])
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.folder}/second.sock").st_mode), 0o600)
        for i, target in enumerate((f"unix:{self.path}", f"unix:{self.folder}/second.sock", f"127.0.0.1:{port}")):
            self.assertEqual(left(self.client(target).ask([("remote_address", "a")])), [9 - i])
        self.assertEqual(daemon.end(), 0)
        self.assertFalse(os.path.exists(self.path))

    def test_a_stale_socket_is_replaced_and_a_living_one_is_left_alone(self):
        first = self.serve()
        second = self.start("-c", self.folder / "tallyd.json", "--listen-rls", f"unix:{self.path}", name="second")
        self.assertEqual(second.ended(), 1)
        self.assertIn(f"another daemon is serving {self.path}", second.text())
        self.assertEqual(left(self.client().ask([("remote_address", "a")])), [9])
        first.end(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path))
        again = self.serve()
        self.assertEqual(left(self.client().ask([("remote_address", "a")])), [9])
        self.assertEqual(again.end(), 0)

    def test_bad_requests_are_told_what_is_wrong_and_the_connection_goes_on(self):
        daemon = self.serve()
        client = self.client()
        good = {"domain": "edge", "descriptors": [{"entries": entries([("remote_address", "a")])}]}
        for bad, said in (({**good, "domain": ""}, "domain: must not be empty"),
                          ({**good, "descriptors": []}, "descriptors: must have 1 to 100, got 0"),
                          ({**good, "descriptors": good["descriptors"] * 101}, "descriptors: must have 1 to 100, got 101"),
                          ({**good, "descriptors": [{"entries": []}]}, "descriptors[0].entries: must have 1 to 32, got 0"),
                          ({**good, "descriptors": [{"entries": entries([("", "a")])}]}, "descriptors[0].entries[0].key: must not be empty")):
            reply = client.one(**bad)
            self.assertEqual((reply["code"], reply["details"]), (INVALID_ARGUMENT, said))
        big = client.one(domain="edge", descriptors=[{"entries": entries([("remote_address", "x" * 2**20)])}])
        self.assertEqual(big["code"], RESOURCE_EXHAUSTED)
        self.assertNotEqual(client.raw(b"\xff\xff\xff")["code"], OK)
        self.assertNotEqual(client.raw(b"\x0a\x7fedge")["code"], OK)  # a length beyond the end
        self.assertEqual(left(client.ask([("remote_address", "a")])), [9])
        self.assertEqual(self.metrics(daemon)['tallyd_errors_total{kind="arguments"}'], 5)
        self.assertEqual(daemon.end(), 0)

    def test_bytes_that_are_no_utf_8_are_counted_as_any_other(self):
        daemon = self.serve()
        client = self.client()

        def field(number, data):
            return bytes([number << 3 | 2, len(data)]) + data

        def request(value):
            entry = field(1, b"remote_address") + field(2, value)
            return field(1, b"edge") + field(2, field(1, entry))

        replies = [client.raw(request(b"\xff\xfe")) for _ in range(11)]
        self.assertEqual([reply["code"] for reply in replies], [OK] * 11)
        over = bytes.fromhex(replies[10]["response"])
        self.assertEqual((bytes.fromhex(replies[9]["response"])[:2], over[:2]), (b"\x08\x01", b"\x08\x02"))  # overall_code
        self.assertEqual(daemon.end(), 0)

    def test_a_reload_changes_the_rules_under_it(self):
        daemon = self.serve()
        client = self.client()
        self.assertEqual(left(client.ask([("remote_address", "a")])), [9])
        self.small(rules=[rule("per-address", 20, ("remote_address", None)), rule("new", 1, ("color", "red"))])
        self.assertEqual(Plain(daemon).ask("TALLY.RELOAD"), "OK")
        response = client.ask([("remote_address", "a")], [("color", "red")], [("route", "login")])
        self.assertEqual((codes(response), left(response)), (["OK"] * 4, [18, 0, 0]))
        self.assertIsNone(response["statuses"][2]["current_limit"])
        self.assertEqual(codes(client.ask([("color", "red")])), ["OVER_LIMIT"] * 2)
        self.assertEqual(daemon.end(), 0)

    def test_above_the_limit_connections_are_turned_away(self):
        daemon = self.serve(limits={"connections": 2})
        client = self.client()
        requests = [{"domain": "edge", "descriptors": [{"entries": entries([("wide", "a")])}]}] * 2
        self.assertEqual([reply["code"] for reply in client.all(requests, 2)], [OK] * 2)
        self.assertEqual(self.client().one(**requests[0])["code"], UNAVAILABLE)
        self.assertGreaterEqual(Plain(daemon).stats()["connections_full"], 1)
        self.assertEqual([reply["code"] for reply in client.all(requests, 2)], [OK] * 2)
        self.assertEqual(daemon.end(), 0)


class Ending(Door):
    def test_sigterm_answers_or_refuses_every_call_and_ends_with_0(self):
        daemon = self.serve()
        client = self.client()
        self.assertEqual(client.health()["response"], {"status": "SERVING"})
        begun = [client.begin(calls=[{"domain": "edge", "descriptors": [{"entries": entries([("wide", "a")])}]}] * 50, channels=2)
                 for _ in range(10)]
        first = client.ended(begun[0])
        daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual({reply["code"] for reply in first}, {OK})
        rest = [reply for which in begun[1:] for reply in client.ended(which)]
        self.assertEqual(len(rest), 450)
        self.assertLessEqual({reply["code"] for reply in rest}, {OK, UNAVAILABLE})
        self.assertEqual(daemon.ended(), 0)
        self.assertEqual(client.code(), UNAVAILABLE)

    def test_a_call_that_waits_for_a_grant_does_not_hold_up_the_end(self):
        ports = free_ports(2)
        waits = rule("waits", 10, ("waits", None), max_overcount=0, on_isolation="closed", wait="10s")
        daemon = self.serve("--bind", f"127.0.0.1:{ports[0]}", "--peers", ",".join(f"127.0.0.1:{port}" for port in ports), rules=[waits],
                            cluster={"isolation_after": "1h"}, name="n")
        client = self.client()
        waiting = client.begin(calls=[{"domain": "edge", "descriptors": [{"entries": entries([("waits", "a")])}]}])
        Plain(daemon).until(lambda stats: stats["waiting"] == 1)
        self.assertEqual(daemon.end(), 0)
        [reply] = client.ended(waiting)
        self.assertTrue(reply["code"] != OK or reply["response"]["overall_code"] == "OVER_LIMIT", reply)

    def test_a_daemon_that_was_killed_is_unavailable_and_one_that_comes_back_is_found(self):
        daemon = self.serve()
        client = self.client()
        self.assertEqual(left(client.ask([("remote_address", "a")])), [9])
        daemon.end(signal.SIGKILL)
        self.assertEqual(client.code(), UNAVAILABLE)
        again = self.serve()
        while client.code() == UNAVAILABLE:  # until its channel tries again; each answer is an event
            self.assertIsNone(again.process.poll(), again.text())
        self.assertEqual(again.end(), 0)

class Central(Door):
    def test_what_redis_decides_is_waited_for(self):
        redis = Redis(self.folder)
        self.addCleanup(redis.end)
        port = free_ports(1)[0]
        rules = [{"name": "per-address", "limit": 3, "window": DAY, "mode": "central", "on_isolation": "closed", "wait": "10s",
                  "match": {"domain": "edge", "descriptors": [{"key": "remote_address"}]}}]
        daemon = self.serve(rules=rules, cluster={"bind": f"127.0.0.1:{port}", "peers": [f"127.0.0.1:{port}"], "books": f"unix:{redis.socket}"})
        client = self.client()
        while "tallyd_books_up" not in self.metrics(daemon) or self.metrics(daemon)["tallyd_books_up"] != 1:
            pass
        self.assertEqual([codes(client.ask([("remote_address", "10.0.0.1")]))[0] for _ in range(4)], ["OK"] * 3 + ["OVER_LIMIT"])
        self.assertEqual(left(client.ask([("remote_address", "10.0.0.1")], [("remote_address", "10.0.0.2")])), [0, 3])
        redis.end()
        self.assertEqual(codes(client.ask([("remote_address", "10.0.0.2")]))[0], "OVER_LIMIT")



if __name__ == "__main__":
    PROGRAMS["modules"] = sys.argv.pop(3)
    processes.main(sys.argv)
