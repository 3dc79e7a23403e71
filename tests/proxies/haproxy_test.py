#!/usr/bin/env python3
"""HAProxy, which asks by Lua, as docs/integrations.md installs it: haproxy_test.py TALLYD TALLY [TEST...]

As root in a chroot, as Debian runs it; as anybody else without.
"""
import getpass
import os
import sys

sys.dont_write_bytecode = True
from proxies import API, HOUR_S, LOGIN, LONG_MS, ROOT, Doors, Logins, Plain, blocks, free_ports, get, program, statuses  # noqa: E402
from processes import main  # noqa: E402

CONFIG = "etc/haproxy/haproxy.cfg"
CLOSED = "http-request return status 503"


class HAProxy(Logins, Doors):
    limit_headers = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
    key = "127.0.0.1"
    keepers = os.cpu_count()  # its threads

    def daemon(self, *rules):
        """One that listens in the proxy's chroot, too."""
        jail = self.folder / "var/lib/haproxy/tallyd"
        jail.mkdir(parents=True, exist_ok=True)
        listen = [f"unix:{self.folder}/tallyd.sock", f"unix:{jail}/tallyd.sock?mode=0660"]
        return super().daemon(*rules, arguments=[word for address in listen for word in ("--listen-resp", address)])

    def door(self, daemon, closed=False, deadline_ms=LONG_MS):
        port, app = free_ports(2)
        self.install("HAProxy")
        root = os.geteuid() == 0
        self.edit(CONFIG, {
            " /etc/haproxy/": f" {self.folder}/etc/haproxy/", "bind :8080": f"bind 127.0.0.1:{port}",
            "server app 127.0.0.1:8000": f"server app 127.0.0.1:{app}", "TALLY_DEADLINE_MS 50": f"TALLY_DEADLINE_MS {deadline_ms}",
            **({f"# {CLOSED}": CLOSED} if closed else {}),
            **({"chroot /var/lib/haproxy": f"chroot {self.folder}/var/lib/haproxy", "group tallyd": f"group {getpass.getuser()}"} if root else
               {"  chroot /var/lib/haproxy\n": "", "  user haproxy\n": "", "  group tallyd": "", "/tallyd/tallyd.sock": daemon.socket})})
        with open(self.folder / CONFIG, "a") as config:  # the application
            config.write(f'frontend app\n  bind 127.0.0.1:{app}\n  http-request return status 200 content-type text/plain string "hello"\n')
        self.proxy([program("haproxy", "haproxy"), "-db", "-f", self.folder / CONFIG], port, "haproxy")
        return port

    def test_headers_have_the_form_of_the_draft(self):
        headers = get(self.door(self.daemon()))[1]
        self.assertEqual(headers["RateLimit-Policy"], '"api";q=100')
        self.assertEqual(headers["RateLimit"], f'"api";r=99;t={HOUR_S}')

    def test_two_rules_are_taken_all_or_nothing_and_both_are_told(self):
        daemon = self.daemon()
        port = self.door(daemon)
        for _ in range(5):
            status, headers = get(port, "/login", X_User="bob")
            self.assertEqual(status, 200)
        self.assertRegex(headers["RateLimit"], r'^"api";r=95;t=\d+, "login";r=0;t=\d+$')
        self.assertEqual((headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]), ("5", "0"))
        status, headers = get(port, "/login", X_User="bob")
        self.assertEqual((status, headers["X-RateLimit-Limit"]), (429, "5"))  # of the rule that refused
        self.assertLessEqual(int(headers["Retry-After"]), HOUR_S)
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "api", "127.0.0.1")[2], 95)  # a refusal charges nobody
        self.assertEqual(get(port, "/login", X_User="eve")[0], 200)

    def test_a_path_is_limited_however_it_is_spelt(self):
        port = self.door(self.daemon())
        self.assertEqual(statuses([port], 6, path="/login", X_User="bob"), [200] * 5 + [429])
        for path in ("/%6cogin", "//login", "/./login", "/%2e/login", "/x/../login", "/..//%6C%6fgin", "/login?next=/", "http://any/%6cogin"):
            self.assertEqual(get(port, path, X_User="bob")[0], 429, path)
        self.assertEqual(get(port, "/login%zz", X_User="bob")[0], 400)
        self.assertEqual(get(port, "/logins", X_User="bob")[0], 200)

    def test_whatever_key_a_client_sends_it_is_counted(self):
        port = self.door(self.daemon())
        long = "x" * 2000
        for headers in ({}, {"X_User": ""}, {"X_User": long}, {"X_User": long + "y"}, {"X_User": "a b,\t\"'%s\\=txn.client"}):
            seen = statuses([port], 7, path="/login", **headers)
            self.assertEqual(set(seen[5:]), {429}, headers)

    def test_a_rule_that_is_not_there_counts_as_away(self):
        port = self.door(self.daemon(LOGIN, dict(API, name="other")))
        status, headers = get(port)
        self.assertEqual((status, headers["RateLimit"]), (200, None))

    def test_the_page_shows_what_is_installed(self):
        whole = (ROOT / "conf/haproxy/haproxy.cfg").read_text()
        shown = [text for language, text in blocks("HAProxy") if language == "haproxy"]
        self.assertEqual(len(shown), 2)
        for text in shown:
            self.assertIn(text, whole)


if __name__ == "__main__":
    main(sys.argv)
