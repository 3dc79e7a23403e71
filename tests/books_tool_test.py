#!/usr/bin/env python3
"""What `tally books` says of books in one Redis, and what it removes: books_tool_test.py TALLYD TALLY [TEST...]"""
import json
import os
import pty
import subprocess
import sys

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import books_process_test  # noqa: E402
import processes  # noqa: E402
from processes import PROGRAMS, WAIT_S, Plain, free_ports, run  # noqa: E402


class Tool(books_process_test.Books):
    def tally(self, *words):
        return run(PROGRAMS["tally"], "books", *words)

    def listed(self, *words):
        told = self.tally(*words, "--json")
        self.assertEqual((told.returncode, told.stderr), (0, ""))
        told = json.loads(told.stdout)
        self.assertEqual(len(told["servers"]), 1)
        return told["servers"][0]

    def test_what_a_fleet_keeps_is_counted_by_kind(self):
        url = f"unix:{self.redis.socket}?prefix=edge&db=2"
        nodes = self.fleet(books=url)
        for key in ("ann", "bob", "eve"):
            self.take(nodes[:1], "strict", key, 1)
        self.take(nodes[:1], "feed", "bob", 1)
        told = self.listed(url)
        self.assertEqual([told[what] for what in ("server", "windows", "buckets", "generations", "lives", "other", "measured")],
                         [self.redis.socket, 3, 1, {"1": 1}, 3, 0, 4])
        self.assertGreater(told["bytes"], 4)
        self.assertEqual(self.tally(url).stdout.splitlines()[2].split()[1:-1], ["3", "1", "0", "1", "1", "3", "0"])
        elsewhere = self.listed(f"unix:{self.redis.socket}?prefix=edge")  # another database
        self.assertEqual((elsewhere["windows"], elsewhere["generations"]), (0, {}))

    def test_what_it_removes_nodes_take_for_a_loss(self):
        nodes = self.fleet()
        self.take(nodes, "strict", "bob", 10)
        url = f"unix:{self.redis.socket}"
        redis = Plain(self.redis)
        for other in ("tallyx:{0}:generation", "tally", "tally:0", "xtally:{0}:generation"):
            redis.ask("SET", other, "1")
        removed = self.tally(url, "--remove", "--yes")
        self.assertEqual((removed.returncode, removed.stderr), (0, ""))
        self.assertRegex(removed.stdout, r"^removed [3-9] names\n$")
        self.assertEqual(self.drain(nodes, "strict", "bob"), 70)
        self.assertEqual(self.losses(nodes), [1, 1, 1])
        self.assertEqual([redis.ask("EXISTS", "tallyx:{0}:generation", "tally", "tally:0", "xtally:{0}:generation")], [4])

    def test_many_names_go_in_batches(self):
        redis = Plain(self.redis)
        redis.send(*[("SET", f"tally:{{0}}:{i:024x}:7", "x") for i in range(5000)])
        for _ in range(5000):
            redis.next()
        told = self.listed(f"unix:{self.redis.socket}")
        self.assertEqual((told["windows"], told["measured"]), (5000, 100))
        self.assertEqual(self.tally(f"unix:{self.redis.socket}", "--remove", "--yes").stdout, "removed 5000 names\n")
        self.assertEqual(redis.ask("DBSIZE"), 0)

    def test_it_asks_at_a_terminal_and_wants_yes_elsewhere(self):
        redis, url = Plain(self.redis), f"unix:{self.redis.socket}"
        redis.ask("SET", "tally:{0}:generation", "x")
        refused = self.tally(url, "--remove")
        self.assertEqual((refused.returncode, refused.stdout), (2, ""))
        self.assertIn("add --yes", refused.stderr)
        for answer, left, code in ((b"n\n", 1, 2), (b"\n", 1, 2), (b"y\n", 0, 0)):
            ours, its = pty.openpty()
            process = subprocess.Popen([PROGRAMS["tally"], "books", url, "--remove"], stdin=its, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            os.write(ours, answer)
            said = process.communicate(timeout=WAIT_S)
            self.assertIn(b"quiet time", said[1])
            self.assertEqual((process.returncode, redis.ask("DBSIZE")), (code, left))
            os.close(ours)
            os.close(its)

    def test_a_user_who_may_not_measure_sees_the_rest(self):
        redis = Plain(self.redis)
        redis.ask("SET", "tally:{0}:000000000000000000000007", "x")
        redis.ask("ACL", "SETUSER", "default", "-memory")
        told = self.listed(f"unix:{self.redis.socket}")
        self.assertEqual([told[what] for what in ("buckets", "measured", "bytes")], [1, 0, 0])
        redis.ask("ACL", "SETUSER", "default", "-scan")
        refused = self.tally(f"unix:{self.redis.socket}")
        self.assertEqual(refused.returncode, 3)
        self.assertIn("NOPERM", refused.stderr)

    def test_the_master_that_sentinel_names_is_asked(self):
        ports = free_ports(2)
        self.server("master", port=ports[0])
        self.server("sentinel", port=ports[1], sentinel=f"sentinel monitor main 127.0.0.1 {ports[0]} 1\n")
        self.assertEqual(self.listed(f"redis-sentinel://127.0.0.1:{ports[1]}/main")["server"], f"127.0.0.1:{ports[0]}")
        unknown = self.tally(f"redis-sentinel://127.0.0.1:{ports[1]}/other")
        self.assertEqual(unknown.returncode, 3)
        self.assertIn("knows no master 'other'", unknown.stderr)

    def test_what_cannot_be_is_said_with_an_exit_code_of_its_own(self):
        port = free_ports(1)[0]
        bad = self.write('{"cluster": {"books": 7}}', "bad.json")
        peers = self.write({"cluster": {"bind": "127.0.0.1:1", "peers": ["127.0.0.1:1"]}}, "peers.json")
        for words, code, said in (((f"redis://127.0.0.1:{port}",), 3, "Connection refused"), ((f"redis-cluster://:hidden@127.0.0.1:{port}",), 3, "Connection refused"),
                                  ((), 2, "usage"), (("redis://a", "redis://b"), 2, "usage"), (("rediss://:hidden@a",), 2, "not served"), (("redis://a", "--yes"), 2, "--yes goes with --remove"),
                                  (("-c", self.folder / "none.json"), 2, "none.json"), (("-c", bad), 78, "books"), (("-c", peers), 2, "not in Redis"),
                                  ((f"redis-cluster://127.0.0.1:{port}/3",), 2, "the database 0 and no other")):
            told = self.tally(*words)
            self.assertEqual((told.returncode, told.stdout), (code, ""), told.stderr)
            self.assertIn(said, told.stderr)
            self.assertNotIn("hidden", told.stderr)


if __name__ == "__main__":
    processes.main(sys.argv)
