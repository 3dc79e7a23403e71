#!/usr/bin/env python3
"""Kong's plugin `tally`, in nginx with a stand-in for what it calls of Kong (kong_stand_in.lua): kong_test.py TALLYD TALLY [TEST...]"""
import json
import sys

sys.dont_write_bytecode = True
from proxies import API, HOUR_S, LIMIT, LOGIN, LONG_MS, ROOT, WORKERS, Doors, Kept, Plain, blocks, free_ports, get, module, statuses  # noqa: E402
from processes import main  # noqa: E402

LUA = "usr/local/share/lua/5.1"
HTTP = """
  lua_package_path "{folder}/{lua}/?.lua;{tests}/?.lua;;";
  lua_socket_log_errors off;
  init_by_lua_block {{ stand_in = require("kong_stand_in").load("{folder}/etc/kong/kong.json") }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      access_by_lua_block {{ stand_in.access() }}
      header_filter_by_lua_block {{ stand_in.header_filter() }}
      proxy_pass http://127.0.0.1:{app};
    }}
  }}
"""


class Kong(Kept, Doors):
    limit_headers = "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"
    key = "ip:127.0.0.1"
    keepers = WORKERS

    def door(self, daemon, closed=False, deadline_ms=LONG_MS, **config):
        module("/usr/share/lua/5.1/cjson", "lua-cjson")
        self.install("Kong")
        path = self.folder / "etc/kong/kong.json"
        declared = json.loads(path.read_text())
        declared["plugins"][0]["config"].update(socket=daemon.socket, deadline=deadline_ms, fault_tolerant=not closed, **config)
        path.write_text(json.dumps(declared))
        port, app = free_ports(2)
        self.nginx(HTTP.format(folder=self.folder, lua=LUA, tests=ROOT / "tests/proxies", port=port, app=app), port, app)
        return port

    def test_headers_are_those_of_its_own_rate_limiting(self):
        headers = get(self.door(self.daemon()))[1]
        self.assertEqual({name: value for name, value in headers.items() if "atelimit" in name.lower()},
                         {"RateLimit-Limit": "100", "RateLimit-Remaining": "99", "RateLimit-Reset": str(HOUR_S), "X-RateLimit-Limit-Minute": "100",
                          "X-RateLimit-Remaining-Minute": "99"})

    def test_headers_can_be_hidden(self):
        daemon = self.daemon()
        port = self.door(daemon, hide_client_headers=True)
        Plain(daemon).ask("TALLY.TAKE", "api", self.key, LIMIT - 1)
        for status in (200, 429):
            seen, headers = get(port)
            self.assertEqual((seen, [name for name in headers if "ate" in name and name != "Date"]), (status, []))

    def test_requests_are_counted_by_what_the_rule_says(self):
        who = {"X_Consumer": "c1", "X_Credential": "k1", "X_Service": "s1", "X_Route": "r1", "X_Tenant": "t1"}
        for limit_by, more, key in (("consumer", {}, "consumer:c1"), ("credential", {}, "credential:k1"), ("service", {}, "service:s1"),
                                    ("route", {}, "route:r1"), ("ip", {}, "ip:127.0.0.1"), ("header", {"header_name": "X-Tenant"}, "header:t1"),
                                    ("path", {"path": "/login"}, "path:/login")):
            with self.subTest(limit_by):
                daemon = self.daemon()
                port = self.door(daemon, rules=[{"name": "api", "limit_by": limit_by, **more}])
                self.assertEqual(get(port, "/login", **who)[0], 200)
                self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "api", key)[2], LIMIT - 1)
                self.doCleanups()
                super().setUp()

    def test_who_has_no_identifier_is_counted_by_address(self):
        daemon = self.daemon()
        port = self.door(daemon, rules=[{"name": "api", "limit_by": "header", "header_name": "X-Tenant"}])
        get(port)
        get(port, X_Tenant="127.0.0.1")  # is not that address
        plain = Plain(daemon)
        self.assertEqual([plain.ask("TALLY.PEEK", "api", key)[2] for key in ("ip:127.0.0.1", "header:127.0.0.1")], [LIMIT - 1] * 2)

    def test_a_credential_stands_for_a_consumer_that_is_not_known(self):
        daemon = self.daemon()
        get(self.door(daemon), X_Credential="k1")
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "api", "consumer:k1")[2], LIMIT - 1)

    def test_two_rules_are_taken_all_or_nothing(self):
        daemon = self.daemon()
        port = self.door(daemon, rules=[{"name": "api", "limit_by": "ip", "window": "minute"},
                                        {"name": "login", "limit_by": "consumer", "window": "hour"}])
        self.assertEqual(statuses([port], 7, X_Consumer="bob"), [200] * 5 + [429] * 2)
        status, headers = get(port, X_Consumer="bob")
        self.assertEqual([headers[name] for name in ("RateLimit-Limit", "RateLimit-Remaining", "X-RateLimit-Remaining-Minute", "X-RateLimit-Remaining-Hour")],
                         ["5", "0", "95", "0"])
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "api", "ip:127.0.0.1")[2], 95)

    def test_a_configuration_that_the_schema_does_not_allow_is_refused(self):
        daemon = self.daemon()
        for wrong, told in (({"rules": []}, "rules: length must be at least 1"), ({"deadline": 0}, "deadline: out of range"),
                            ({"limit": 5}, "limit: unknown field"), ({"rules": [{"name": "api", "limit_by": "header"}]}, "header_name: required field missing")):
            with self.subTest(told), self.assertRaises(AssertionError) as failed:
                self.door(daemon, **{"deadline_ms" if name == "deadline" else name: value for name, value in wrong.items()})
            self.assertIn(told, str(failed.exception) + (self.folder / "nginx.log").read_text())

    def test_the_page_shows_what_is_installed(self):
        shown = [text for language, text in blocks("Kong") if language == "json"]
        self.assertEqual(len(shown), 1)
        self.assertIn(shown[0], (ROOT / "conf/kong/kong.json").read_text())


if __name__ == "__main__":
    main(sys.argv)
