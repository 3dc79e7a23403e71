#!/usr/bin/env python3
"""The tools around the daemon: the demonstration leaves nothing behind, its relay is invisible, the benchmark runs.

Usage: tools_test.py BUILD_DIRECTORY [unittest arguments]. Waits for events (a line, a process's end), never for time.
"""
import fcntl
import io
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stdout
from unittest import mock

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "demo"))
import demo  # noqa: E402
import fleet  # noqa: E402
import world  # noqa: E402

BUILD = None
PATIENCE_S = 120  # for a whole demonstration of one case, under a sanitizer


def processes_of(folder):
    """Those that have the folder's path in their command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for_end(pid):
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [], 20)
    os.close(descriptor)


class Demonstration(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tools-test-", dir="/tmp")
        self.addCleanup(self.folder.cleanup)

    def start(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tools/demo/demo.py"), "--build", BUILD, "--seed", "1", *arguments],
            env=os.environ | {"TMPDIR": self.folder.name}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_and_end_with(self, number):
        """Ends a demonstration by a signal while its fleet runs; returns it when all that it started is gone."""
        process = self.start("--cases", "1")
        for line in process.stdout:
            if line.startswith("[5 tallyd processes"):
                break
        else:
            self.fail("it ended before its fleet ran")
        self.assertGreaterEqual(len(processes_of(self.folder.name)), 6, "five daemons and Redis")
        process.send_signal(number)
        process.wait(PATIENCE_S)
        for pid in processes_of(self.folder.name):  # the kernel has told them to die; they may be at it
            wait_for_end(pid)
        self.assertEqual([], processes_of(self.folder.name))
        return process

    def test_when_it_is_killed_its_processes_die_with_it(self):
        self.start_and_end_with(signal.SIGKILL)

    def test_what_a_killed_one_left_on_disk_the_next_one_removes(self):
        self.start_and_end_with(signal.SIGKILL)
        left = list(pathlib.Path(self.folder.name).iterdir())
        self.assertEqual(1, len(left))
        # A child that was being started holds the lock, unseen by its command line, until it is a program of its own or dead.
        with open(left[0] / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        fleet.sweep(pathlib.Path(self.folder.name))
        self.assertEqual([], list(pathlib.Path(self.folder.name).iterdir()))

    def test_asked_to_end_it_ends_all_and_removes_its_directory(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                self.start_and_end_with(number)
                self.assertEqual([], list(pathlib.Path(self.folder.name).iterdir()))

    def test_two_at_once_do_not_meet(self):
        both = [self.start("--cases", "6"), self.start("--cases", "6", "--books")]
        for process in both:
            text, _ = process.communicate(timeout=PATIENCE_S)
            self.assertEqual(0, process.returncode, text)
            self.assertIn("kept    case 6: logins never above 5", text)
        self.assertEqual([], processes_of(self.folder.name))

    def test_a_broken_promise_makes_it_fail(self):
        for kept, status in ((True, 0), (False, 1)):
            with self.subTest(kept), redirect_stdout(io.StringIO()) as out, \
                    mock.patch.object(sys, "argv", ["demo.py", "--build", BUILD, "--cases", "2"]), \
                    mock.patch.dict(demo.IN_ORDER, {"2": lambda w: w.report.promise("no more than promised", kept)}):
                self.assertEqual(status, demo.main())
                self.assertIn("kept" if kept else "BROKEN", out.getvalue().splitlines()[-2])

    def test_what_cannot_run_is_neither_kept_nor_broken(self):
        with mock.patch.object(sys, "argv", ["demo.py", "--build", self.folder.name]), \
                mock.patch.object(sys, "stderr", io.StringIO()) as said, redirect_stdout(io.StringIO()):
            self.assertEqual(2, demo.main())
            self.assertIn("is not there", said.getvalue())

    def test_bounds_are_whole_numbers_rounded_down(self):
        for limit, overcount, bound in ((100, "5%", 105), (50, "5%", 52), (5, 0, 5), (1000, "5%", 1050), (1, "5%", 1)):
            self.assertEqual(bound, world.bound_of(limit, overcount))


class Relay(unittest.TestCase):
    def test_a_datagram_arrives_as_if_its_sender_had_sent_it(self):
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
        for each in sockets:
            self.addCleanup(each.close)
            each.bind(("127.0.0.1", 0))
            each.settimeout(20)
        addresses = [each.getsockname() for each in sockets]
        nodes, entries = sockets[:2], addresses[2:]
        for each in sockets[2:]:
            each.close()
        pairs = [f"127.0.0.1:{entries[i][1]}=127.0.0.1:{addresses[i][1]}" for i in (0, 1)]
        with subprocess.Popen([f"{BUILD}/tally_relay", "udp", "1000", *pairs], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as relay:
            self.assertEqual("ready\n", relay.stdout.readline())
            for sender, receiver in ((0, 1), (1, 0), (0, 0)):
                nodes[sender].sendto(b"%d" % sender, entries[receiver])
                self.assertEqual((b"%d" % sender, entries[sender]), nodes[receiver].recvfrom(100))
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(stranger.close)
            stranger.sendto(b"forged", entries[0])
            nodes[1].sendto(b"after", entries[0])
            self.assertEqual(b"after", nodes[0].recv(100))
            relay.stdin.write("\n")
            relay.stdin.flush()
            self.assertEqual("4 8 1\n", relay.stdout.readline())
            relay.stdin.close()
            self.assertEqual(0, relay.wait(20))


class Bench(unittest.TestCase):
    @unittest.skipUnless(os.environ.get("TALLY_BENCH_BUILT") == "1", "built without the benchmarks")
    def test_the_benchmark_measures_every_server_and_writes_its_figures(self):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            out = pathlib.Path(folder) / "figures.json"
            done = subprocess.run([sys.executable, str(ROOT / "tools/bench/bench.py"), "--build", BUILD, "--rounds", "1",
                                   "--seconds", "0.05", "--keys", "1000", "--counts", "2000", "--connections", "5", "--json", str(out)],
                                  capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ | {"TMPDIR": folder},
                                  check=False)
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
            figures = json.loads(out.read_text())
            rows = figures["summary"]
            self.assertEqual((7 * 3 + 1) + 4 + 4 + 2 * 3 + 2 * 2 * 2, len(rows))
            self.assertTrue(all(row["per_second"] > 0 and row["batch_p50_us"] > 0 for row in rows), rows)
            self.assertEqual(11 + 1 + 2, len(figures["goals"]))
            self.assertEqual([], processes_of(folder))


    @unittest.skipUnless(os.environ.get("TALLY_BENCH_BUILT") == "1", "built without the benchmarks")
    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "needs two cores")
    def test_what_runs_beside_decisions_is_measured(self):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            out = pathlib.Path(folder) / "bench-beside.json"
            done = subprocess.run([sys.executable, str(ROOT / "tools/bench/beside.py"), "--build", BUILD, "--rounds", "1", "--seconds", "0.5",
                                   "--keys", "1000", "--peers", "3", "--json", str(out)],
                                  capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ | {"TMPDIR": folder}, check=False)
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
            figures = json.loads(out.read_text())
            self.assertEqual(2 + 4, len(figures["goals"]))
            rows = {(row["part"], row["way"]): row for row in figures["rounds"]}
            self.assertEqual(2 * 2 + 3, len(rows))
            self.assertTrue(all(row["decisions"] > 0 for row in rows.values()), rows)
            self.assertEqual(1000, rows["everything, pipeline 1", "everything"]["leased"])
            self.assertTrue(rows["stalls", "scrapes"]["events"] and rows["stalls", "reloads"]["events"])
            listed = subprocess.run([sys.executable, str(ROOT / "tools/bench/figures.py"), str(out)], capture_output=True, text=True, check=True)
            self.assertRegex(listed.stdout, r"of 6 goals reached:\n(reached |MISSED  ) beside: everything")
            self.assertEqual([], processes_of(folder))

    def test_what_a_door_adds_to_a_request_is_measured(self):
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            out = pathlib.Path(folder) / "bench-doors.json"
            done = subprocess.run([sys.executable, str(ROOT / "tools/bench/doors.py"), "--build", BUILD, "--rounds", "2", "--requests", "50", "--json", str(out)],
                                  capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ | {"TMPDIR": folder}, check=False)
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
            rows = json.loads(out.read_text())["summary"]
            by_grpc = (pathlib.Path(BUILD) / "tally_rls_load").exists()
            self.assertEqual({"nginx": 5, "HAProxy": 3, None: 6 + by_grpc},
                             {beside: sum(beside == row["beside"] for row in rows) for beside in ("nginx", "HAProxy", None)})
            self.assertTrue(all(row["p99_us"]["least"] > 0 for row in rows), rows)
            for row in rows:  # an application that asks by itself waits all that time; a proxy without a limit is what others are held against
                added = {None: row["p50_us"]["median"], row["door"]: 0}.get(row["beside"])
                self.assertIn(added, (None, row["added_p50_us"]["median"]), row)
            self.assertEqual([], processes_of(folder))


class Nightly(unittest.TestCase):
    def test_runs_until_it_is_ended_and_sums_up(self):
        for end in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=end):
                running = subprocess.Popen([f"{BUILD}/tally-sim", "--nightly"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                try:
                    base = re.fullmatch(r"nightly: seeds from (\d+) on\n", running.stdout.readline())
                    self.assertTrue(base)
                    os.kill(running.pid, end)
                    out, progress = running.communicate(timeout=PATIENCE_S)
                finally:
                    if running.poll() is None:
                        running.kill()
                        running.wait()
                self.assertEqual(progress, "")  # nobody looks
                summary = re.search(r"^nightly: (\d+) clusters from seed (\d+) in \d+ s, admitted \d+ of \d+, (\d+) failed(: .*)?$", out,
                                    re.MULTILINE)
                self.assertTrue(summary, out)
                self.assertEqual(summary.group(2), base.group(1))
                self.assertEqual(running.returncode, 0 if summary.group(3) == "0" else 1, out)

    def test_the_seed_that_is_given_is_the_first(self):
        with subprocess.Popen([f"{BUILD}/tally-sim", "--nightly", "--seed", "17"], stdout=subprocess.PIPE, text=True) as running:
            first = running.stdout.readline()
            os.kill(running.pid, signal.SIGTERM)
            running.communicate(timeout=PATIENCE_S)
        self.assertEqual(first, "nightly: seeds from 17 on\n")


if __name__ == "__main__":
    BUILD = str(pathlib.Path(sys.argv[1]).resolve())
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
