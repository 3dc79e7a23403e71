#!/usr/bin/env python3
"""The client library in processes of its own: bounds over processes and hosts, a daemon that goes and comes back, children, deadlines."""
import os
import signal
import subprocess
import sys
import time

from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports, main

AWAY, OVER_LIMIT, NO_GRANT, ADMITTED, BLOCKED, EXEMPT = 7, 1, 2, 0, 5, 6
LONG_MS = 20_000  # a deadline that nothing is expected to reach


class Process:
    """One process that uses the library."""

    def __init__(self, case, socket, when="closed", deadline_ms=LONG_MS, tick_ms=10):
        words = [PROGRAMS["driver"], socket, when, deadline_ms, tick_ms]
        # TSan ends children of processes with threads that start threads, unless it is told otherwise.
        environment = dict(os.environ, TSAN_OPTIONS=os.environ.get("TSAN_OPTIONS", "") + " die_after_fork=0")
        self.process = subprocess.Popen(list(map(str, words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        case.addCleanup(self.kill)

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self):
        return self.process.stdout.readline().rstrip("\n")

    def numbers(self):
        return list(map(int, self.hear().split()))

    def ask(self, *words):
        self.say(*words)
        return self.numbers()

    def end(self):
        self.process.stdin.close()
        code = self.process.wait(WAIT_S)
        self.process.stdout.close()
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


class Client(Case):
    def daemon(self, rules, name=None, arguments=()):
        return self.start("-c", self.small(rules=rules), *arguments, name=name).ready()

    def left_of(self, daemon, rule, key):
        """Takes what is left, one by one: all of it, once nobody holds anything any more."""
        client, taken = Plain(daemon), 0
        while True:
            answer = client.ask("TALLY.TAKE", rule, key, "1")
            if answer[0] == 0:
                taken += 1
            elif answer[5] == OVER_LIMIT:
                return taken

    def test_processes_of_one_host_share_a_limit_to_the_last_request(self):
        for algorithm in ("fixed_window", "sliding_window"):
            with self.subTest(algorithm):
                daemon = self.daemon([{"name": "api", "algorithm": algorithm, "limit": 50_000, "window": DAY}])
                processes = [Process(self, daemon.socket) for _ in range(3)]
                for process in processes:
                    process.say("until", "api", "k", 50)
                allowed = [process.numbers()[0] for process in processes]
                leased = [process.ask("stats")[1] for process in processes]
                self.assertGreater(sum(leased), 10_000)  # most was admitted without a question
                for process in processes:
                    self.assertEqual(process.end(), 0)
                self.assertEqual(sum(allowed) + self.left_of(daemon, "api", "k"), 50_000)
                daemon.end()

    def test_what_a_process_holds_that_dies_is_lost_and_no_more(self):
        daemon = self.daemon([{"name": "api", "limit": 50_000, "window": DAY}])
        process = Process(self, daemon.socket)
        allowed = process.ask("api", "k", 1, 5_000)[0]
        self.assertEqual(allowed, 5_000)
        process.kill()
        taken = int(Plain(daemon).ask("TALLY.PEEK", "api", "k")[2])
        self.assertLessEqual(self.left_of(daemon, "api", "k"), 45_000)
        self.assertLessEqual(taken, 45_000)

    def test_what_is_not_needed_goes_back_while_the_process_lives(self):
        daemon = self.daemon([{"name": "api", "limit": 50_000, "window": DAY}])
        process, client = Process(self, daemon.socket), Plain(daemon)
        self.assertEqual(process.ask("api", "k", 1, 5_000)[0], 5_000)
        while client.ask("TALLY.PEEK", "api", "k")[2] != 45_000:  # within a few ticks
            pass
        received, put_back = process.ask("stats")[1], process.ask("stats")[3]
        self.assertGreater(received, 0)
        self.assertGreater(put_back, 0)

    def test_a_bucket_keeps_its_promise_with_processes_that_hold_its_tokens(self):
        rate, burst = 2_000, 1_000
        daemon = self.daemon([{"name": "feed", "algorithm": "token_bucket", "rate": f"{rate}/s", "burst": burst, "process_hold": "50ms"}])
        processes = [Process(self, daemon.socket) for _ in range(2)]
        begun, allowed = time.monotonic(), 0
        for _ in range(3):
            for process in processes:
                process.say("feed", "k", 1, 30_000)
            allowed += sum(process.numbers()[0] for process in processes)
            self.assertLessEqual(allowed, burst + rate * (time.monotonic() - begun))
        self.assertGreaterEqual(allowed, burst - 104)  # what is held for 50 ms, and 3 %
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "feed", "k")[1], burst - 104)  # what is held for 50 ms, and 3 %

    def test_exempt_and_blocked_keys_are_asked_for_each_time_and_nothing_is_held_of_them(self):
        daemon = self.daemon([{"name": "api", "limit": 10, "window": DAY, "overrides": {"free": "exempt", "bad": "blocked", "vip": 50_000}}])
        process = Process(self, daemon.socket)
        self.assertEqual(process.ask("api", "free", 1, 5_000)[:2], [5_000, EXEMPT])
        self.assertEqual(process.ask("api", "bad", 1, 5_000)[:2], [0, BLOCKED])
        asked, received = process.ask("stats")[:2]
        self.assertEqual((asked, received), (10_000, 0))
        self.assertEqual(process.ask("api", "vip", 1, 5_000)[0], 5_000)
        self.assertGreater(process.ask("stats")[1], 0)  # a limit of its own is leased like any other
        self.assertEqual(process.end(), 0)
        self.assertEqual(5_000 + self.left_of(daemon, "api", "vip"), 50_000)

    def test_processes_of_three_hosts_share_a_strict_limit(self):
        ports = free_ports(3)
        peers = [f"127.0.0.1:{port}" for port in ports]
        daemons = []
        for i, own in enumerate(peers):
            config = self.write({"node": {"state_dir": str(self.folder / f"n{i}")}, "table": {"keys": 4096}, "workers": 1,
                                 "cluster": {"bind": own, "peers": peers, "sync_interval": "20ms"},
                                 "rules": [{"name": "api", "limit": 30_000, "window": DAY, "max_overcount": 0, "wait": "10s"}]}, f"n{i}.json")
            daemons.append(self.start("-c", config, name=f"n{i}"))
        for daemon in daemons:
            daemon.ready()
        processes = [Process(self, daemon.socket) for daemon in daemons for _ in range(2)]
        for process in processes:
            process.say("until", "api", "k", 50)
        allowed = sum(process.numbers()[0] for process in processes)
        self.assertLessEqual(allowed, 30_000)
        for process in processes:
            self.assertEqual(process.end(), 0)
        # Put back at the end of each process: who asks now gets it, wherever it was.
        client, rest = Plain(daemons[0]), 0
        while client.ask("TALLY.TAKE", "api", "k", "1")[0] == 0:
            rest += 1
        self.assertLessEqual(allowed + rest, 30_000)
        self.assertGreaterEqual(allowed + rest, 30_000 * 0.95)

    def test_a_process_decides_by_its_word_while_the_daemon_is_away_and_follows_it_when_it_is_back(self):
        config = self.small(rules=[{"name": "api", "limit": 1_000_000, "window": DAY}])
        daemon = self.start("-c", config)
        daemon.ready()
        closed, opened, fallback = (Process(self, daemon.socket, when) for when in ("closed", "open", "25"))
        for process in (closed, opened, fallback):
            self.assertEqual(process.ask("api", "k", 1, 100)[:2], [100, ADMITTED])
        daemon.end(signal.SIGKILL)
        # What was held is still theirs; a key of which they hold nothing is decided by their word.
        self.assertEqual(closed.ask("api", "new", 1, 100)[:2], [0, AWAY])
        self.assertEqual(opened.ask("api", "new", 1, 100)[:2], [100, AWAY])
        self.assertEqual(fallback.ask("api", "new", 1, 100)[:2], [25, AWAY])
        closed.say("error")
        self.assertIn(f"cannot reach tallyd at {daemon.socket}", closed.hear())
        self.start("-c", config).ready()
        for process in (closed, opened, fallback):
            while process.ask("api", "back", 1, 1)[1] == AWAY:
                pass
            self.assertEqual(process.ask("api", "back", 1, 100)[:2], [100, ADMITTED])

    def test_a_daemon_that_hangs_costs_a_deadline_and_the_answer_is_the_callers(self):
        daemon = self.daemon([{"name": "api", "limit": 1000, "window": DAY}])
        process = Process(self, daemon.socket, "closed", deadline_ms=30)
        while process.ask("api", "k", 1, 1)[1] == AWAY:  # a busy machine may need longer for the first one
            pass
        daemon.process.send_signal(signal.SIGSTOP)
        os.waitpid(daemon.process.pid, os.WUNTRACED)  # until its last thread stands still
        try:
            self.assertEqual(process.ask("api", "other", 1, 1)[:2], [0, AWAY])
            process.say("error")
            self.assertIn("did not answer within the deadline", process.hear())
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        while process.ask("api", "other", 1, 1)[1] == AWAY:
            pass

    def test_a_child_spends_nothing_of_what_its_parent_holds(self):
        daemon = self.daemon([{"name": "api", "limit": 50_000, "window": DAY}])
        process = Process(self, daemon.socket)
        self.assertEqual(process.ask("api", "k", 1, 10_000)[0], 10_000)
        self.assertEqual(process.ask("fork", "api", "k", 10_000), [10_000, 10_000])
        self.assertEqual(process.end(), 0)
        # The child ended without a word: what it held is lost. What it had spent of its parent's would be here once more.
        self.assertLessEqual(30_000 + self.left_of(daemon, "api", "k"), 50_000)

    def test_an_answer_that_is_an_error_is_told_and_decided_by_the_callers_word(self):
        daemon = self.daemon([{"name": "login", "limit": 5, "window": DAY}])
        process = Process(self, daemon.socket, "closed")
        self.assertEqual(process.ask("lgoin", "k", 1, 3)[:2], [0, AWAY])
        process.say("error")
        self.assertEqual(process.hear(), "NORULE no rule 'lgoin'; did you mean 'login'?")
        self.assertEqual(process.ask("login", "k", 1, 20)[:2], [5, OVER_LIMIT])
        self.assertEqual(process.ask("login", "fresh", 0, 1)[:3], [1, ADMITTED, 5])  # a look
        self.assertEqual(process.ask("login", "fresh", 6, 1)[:2], [0, OVER_LIMIT])   # never

    def test_a_reset_is_seen_within_a_tick(self):
        daemon = self.daemon([{"name": "login", "limit": 5, "window": DAY}])
        process = Process(self, daemon.socket, "closed")
        self.assertEqual(process.ask("login", "k", 1, 1000)[:2], [5, OVER_LIMIT])
        Plain(daemon).ask("TALLY.RESET", "login", "k")
        while process.ask("login", "k", 1, 1)[0] == 0:
            pass


if __name__ == "__main__":
    PROGRAMS["driver"] = sys.argv.pop(3)
    main(sys.argv)
