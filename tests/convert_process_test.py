#!/usr/bin/env python3
"""`tally rules test` and `tally convert envoy` as processes: what they print, and how they end.

Usage: convert_process_test.py TALLYD TALLY [unittest arguments].
"""
import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from processes import PROGRAMS, Case, Plain, main, run  # noqa: E402


def match(domain, *entries):
    """("path", "/login") is an entry with its value, "remote_address" one with any."""
    return {"domain": domain, "descriptors": [{"key": one} if isinstance(one, str) else {"key": one[0], "value": one[1]} for one in entries]}


def rule(name, limit, **more):
    return {"name": name, "limit": limit, "window": "1m", **more}


RULES = [
    rule("any", 100, match=match("edge", "remote_address", "path"), overrides={"10.0.0.1|/x": 7}),
    rule("login", 5, match=match("edge", "remote_address", ("path", "/login")), overrides={"10.0.0.0/8": "exempt", "192.0.2.1": 50}),
    rule("tried", 3, match=match("edge", "remote_address", ("path", "/log*")), shadow=True),
    rule("named", 1),
]

RATELIMIT = """
domain: edge
descriptors:
  - key: remote_address
    rate_limit: {unit: minute, requests_per_unit: 2, replaces: [{name: other}]}
  - key: remote_address
    value: 10.0.0.1
    rate_limit: {unlimited: true}
"""


class Tool(Case):
    def tally(self, *words, code=0):
        done = run(PROGRAMS["tally"], *words, cwd=self.folder)
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        return done


class RulesTest(Tool):
    def setUp(self):
        super().setUp()
        self.path = self.write({"rules": RULES})

    def found(self, request):
        done = self.tally("rules", "test", request, "-c", self.path, "--json")
        return [(one["rule"], one["applies"], one["key"], one["override"], one["limit"]) for one in json.loads(done.stdout)["rules"]]

    def test_rules_that_apply_come_with_their_keys_and_overrides_and_less_specific_ones_are_shown(self):
        self.assertEqual([("login", True, "10.1.2.3", "10.0.0.0/8", "exempt"), ("tried", True, "10.1.2.3|/login", None, "3 per 1m, sliding"),
                          ("any", False, "10.1.2.3|/login", None, "100 per 1m, sliding")],
                         self.found("domain=edge remote_address=10.1.2.3 path=/login"))
        self.assertEqual([("login", True, "192.0.2.1", "192.0.2.1", "50 per 1m, sliding")], self.found("domain=edge remote_address=192.0.2.1 path=/login")[:1])
        self.assertEqual([("any", True, "10.0.0.1|/x", "10.0.0.1|/x", "7 per 1m, sliding")], self.found("domain=edge remote_address=10.0.0.1 path=/x"))
        self.assertEqual([], self.found("domain=edge path=/x remote_address=10.0.0.1"))

    def test_what_a_rule_takes_along_is_listed_behind_it_under_the_same_key(self):
        path = self.write({"rules": [
            rule("login", 5, match=match("edge", "user"), also=["daily", "tried"]), rule("other", 5, match=match("edge", "user")),
            rule("daily", 100, also=["named"], overrides={"bob": 7}, match=match("edge", "address")), rule("tried", 3, shadow=True), rule("named", 1)]})
        lines = self.tally("rules", "test", "domain=edge user=bob", "-c", path).stdout.splitlines()
        self.assertEqual([["login", "yes", "bob", "5 per 1m, sliding", "-", "edge: user"],
                          ["daily", "yes (also of login)", "bob", "7 per 1m, sliding", "bob", "-"],
                          ["tried", "in shadow (also of login)", "bob", "3 per 1m, sliding", "-", "-"],
                          ["other", "yes", "bob", "5 per 1m, sliding", "-", "edge: user"]],
                         [re.split(r" {2,}", line) for line in lines[1:]])
        found = json.loads(self.tally("rules", "test", "domain=edge user=bob", "-c", path, "--json").stdout)["rules"]
        self.assertEqual([("login", None), ("daily", "login"), ("tried", "login"), ("other", None)], [(one["rule"], one["also_of"]) for one in found])

    def test_it_reads_well(self):
        lines = self.tally("rules", "test", "domain=edge", "remote_address=10.1.2.3", "path=/log, in", "-c", self.path).stdout.splitlines()
        self.assertEqual([["rule", "applies", "key", "limit", "override", "match"],
                          ["any", "yes", "10.1.2.3|/log, in", "100 per 1m, sliding", "-", "edge: remote_address, path"],
                          ["tried", "in shadow", "10.1.2.3|/log, in", "3 per 1m, sliding", "-", "edge: remote_address, path=/log*"]],
                         [re.split(r" {2,}", line) for line in lines])
        self.assertEqual("no rule matches: the request has no limit\n", self.tally("rules", "test", "domain=other a=b", "-c", self.path).stdout)

    def test_json_may_stand_first(self):
        for words in (("--json", "rules", "test"), ("rules", "--json", "test"), ("rules", "test", "--json")):
            done = self.tally(*words, "domain=edge remote_address=1.1.1.1 path=/x", "-c", self.path)
            self.assertEqual("any", json.loads(done.stdout)["rules"][0]["rule"])

    def test_a_wrong_request_or_configuration_is_refused(self):
        for request, said in (("remote_address=1", "the first word is the domain"), ("domain=edge", "at least one entry"), ("domain=edge path", "got 'path'")):
            self.assertIn(said, self.tally("rules", "test", request, "-c", self.path, code=2).stderr)
        self.assertIn("a request is missing", self.tally("rules", "test", "-c", self.path, code=2).stderr)
        self.assertIn("none.json: cannot be read", self.tally("rules", "test", "domain=d a=b", "-c", "none.json", code=2).stderr)
        self.write({"rules": [rule("a", 0, match=match("d", "k"))]})
        self.assertRegex(self.tally("rules", "test", "domain=d k=v", "-c", self.path, code=78).stderr, r"tallyd\.json:1:\d+: rules\[0\]\.limit")


class Convert(Tool):
    def test_what_comes_out_is_a_configuration_that_a_daemon_serves(self):
        self.write(RATELIMIT, "ratelimit.yaml")
        done = self.tally("convert", "envoy", "ratelimit.yaml")
        self.assertEqual('warning: ratelimit.yaml:5:54: "replaces" is not carried over: the rules that other descriptors of a request match hold as well\n',
                         done.stderr)
        path = self.write(done.stdout)
        self.tally("check", path)
        self.assertIn("edge/remote_address=10.0.0.1  yes", self.tally("rules", "test", "domain=edge remote_address=10.0.0.1", "-c", path).stdout)
        daemon = self.start("-c", path).ready()
        client = Plain(daemon)
        self.assertEqual([0, 0, 1], [client.ask("TALLY.TAKE", "edge/remote_address", "192.0.2.1")[0] for _ in range(3)])
        self.assertEqual(6, client.ask("TALLY.TAKE", "edge/remote_address=10.0.0.1", "*")[5])
        self.assertEqual(0, daemon.end())

    def test_a_wrong_file_is_refused_with_its_places(self):
        self.write("domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: fortnight, requests_per_unit: 1}\n  - value: x\n", "bad.yaml")
        done = self.tally("convert", "envoy", "bad.yaml", code=78)
        self.assertEqual("", done.stdout)
        self.assertRegex(done.stderr, r'^bad\.yaml:4:24: "unit" must be [^\n]*\nbad\.yaml:5:5: a descriptor must have a "key"\n$')
        self.write("domain: d\ndescriptors:\n- {key: a, rate_limit: {unit: hour, requests_per_unit: 1}}\n" +
                   "".join(f"- {{key: a, value: {i}{'x' * 1_000_000}}}\n" for i in range(20)), "long.yaml")
        done = self.tally("convert", "envoy", "long.yaml", code=78)
        self.assertEqual("", done.stdout)
        self.assertRegex(done.stderr, r"^long\.yaml:\d+:3: becomes more than a configuration may have, 16777216 bytes: [^\n]+\n$")
        self.assertIn("cannot be read", self.tally("convert", "envoy", "none.yaml", code=2).stderr)
        for words in ((), ("envoy",), ("nginx", "x"), ("envoy", "a", "b")):
            self.assertIn("usage: tally convert envoy FILE", self.tally("convert", *words, code=2).stderr)


if __name__ == "__main__":
    main(sys.argv)
