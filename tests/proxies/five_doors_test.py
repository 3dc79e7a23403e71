#!/usr/bin/env python3
"""Five nginx, each with a tallyd of its own, that share one limit: five_doors_test.py TALLYD TALLY [TEST...]"""
import sys
import time

sys.dont_write_bytecode = True
from proxies import LIMIT, LONG_MS, Doors, free_ports, statuses  # noqa: E402
from processes import DAY, WAIT_S, main  # noqa: E402

BOUND, NEARLY_ALL = LIMIT * 105 // 100, LIMIT * 95 // 100


class FiveDoors(Doors):
    def start_all(self):
        """The ports of five nginx."""
        peers = [f"127.0.0.1:{port}" for port in free_ports(5)]
        # The window is a day where one would write a minute: a test that begins at the end of a minute would count two of them.
        config = self.small(rules=[{"name": "api", "limit": LIMIT, "window": DAY, "max_overcount": "5%", "wait": "1s",
                                    "on_isolation": "closed"}], cluster={"peers": peers})
        daemons = [self.start("-c", config, "--bind", peer, name=f"edge-{i}") for i, peer in enumerate(peers)]
        self.install("nginx")
        shared = (self.folder / "etc/nginx/conf.d/tally.conf").read_text(), (self.folder / "etc/nginx/conf.d/site.conf").read_text()
        ports = free_ports(10)
        for i, daemon in enumerate(daemons):
            settings, site = (f"etc/nginx/conf.d/{name}-{i}.conf" for name in ("tally", "site"))
            for path, text in zip((settings, site), shared):
                (self.folder / path).write_text(text)
            self.edit(settings, {"/run/tallyd/tallyd.sock": daemon.ready().socket, "/etc/nginx/tally/": f"{self.folder}/etc/nginx/tally/",
                                 "deadline_ms = 50": f"deadline_ms = {LONG_MS}"})
            self.edit(site, {"listen 8080": f"listen 127.0.0.1:{ports[i]}", "127.0.0.1:8000": f"127.0.0.1:{ports[5 + i]}"})
            self.nginx(f"include {self.folder}/{settings};\ninclude {self.folder}/{site};", ports[i], ports[5 + i], name=f"edge-{i}")
        return ports[:5]

    def test_together_they_admit_nearly_all_of_the_limit_and_never_more_than_the_bound(self):
        ports = self.start_all()
        admitted, end = 0, time.monotonic() + WAIT_S
        while admitted < NEARLY_ALL:  # a request whose grant comes too late on a busy machine is refused, and the next one gets it
            self.assertLess(time.monotonic(), end, f"{admitted} admitted so far")
            seen = statuses(ports * 2, 5)
            self.assertEqual(set(seen) - {200, 429}, set())
            admitted += seen.count(200)
        admitted += statuses(ports * 2, 50).count(200)
        self.assertLessEqual(admitted, BOUND)

    def test_one_door_alone_admits_nearly_all_of_it(self):
        ports = self.start_all()
        admitted, end = 0, time.monotonic() + WAIT_S
        while admitted < NEARLY_ALL:
            self.assertLess(time.monotonic(), end, f"{admitted} admitted so far")
            admitted += statuses(ports[:1] * 4, 10).count(200)
        admitted += statuses(ports * 2, 20).count(200)
        self.assertLessEqual(admitted, BOUND)


if __name__ == "__main__":
    main(sys.argv)
