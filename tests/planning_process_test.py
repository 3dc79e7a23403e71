#!/usr/bin/env python3
"""`tally plan` and `tally try` as processes: what they print and write, how they end, and what they leave behind.

Usage: planning_process_test.py TALLYD TALLY [unittest arguments].
"""
import csv
import io
import json
import os
import pathlib
import pty
import subprocess
import sys
import xml.etree.ElementTree as xml

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from processes import PROGRAMS, WAIT_S, Case, main, run  # noqa: E402

DOORS = ("limit=100 window=1m algorithm=fixed_window", "--nodes", "5", "--shape", "burst", "--load", "4", "--for", "10s")
LOG = '10.0.0.%d - - [10/Oct/2000:13:55:%02d -0700] "GET / HTTP/1.0" 200 2326\n'


class Planning(Case):
    def tally(self, *words, code=0):
        done = run(PROGRAMS["tally"], *words, cwd=self.folder)
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        return done

    def refused(self, message, *words):
        """Ends with 2, says exactly this, prints nothing else and leaves no file."""
        before = sorted(self.folder.iterdir())
        done = self.tally(*words, code=2)
        self.assertEqual(message, done.stderr.removeprefix("tally: ").rstrip("\n"))
        self.assertEqual("", done.stdout)
        self.assertEqual(before, sorted(self.folder.iterdir()))


class Plan(Planning):
    def test_a_plan_in_a_pipe_is_a_table_and_advice_and_nothing_else(self):
        done = self.tally("plan", *DOORS, "--sync", "50ms,100ms")
        self.assertEqual("", done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual("100 per 1m, fixed_window, overcount 5%", lines[0])
        self.assertEqual("400 requests in 10s at 5 nodes (shape burst, load 400%): offered 400, admissible 100", lines[1])
        self.assertEqual(["sync", "50ms", "100ms"], [line.split()[0] for line in lines[3:6]])
        self.assertRegex(lines[7], r"^(50|100)ms keeps \S+% of admissible traffic for \S+ kB/s a node, and ")
        self.assertEqual(8, len(lines))

    def test_the_same_command_prints_the_same(self):
        words = ("plan", "rate=50/s burst=20 algorithm=token_bucket", "--nodes", "4", "--shape", "zipf", "--load", "2",
                 "--for", "5s", "--loss", "5%", "--sync", "100ms")
        self.assertEqual(self.tally(*words).stdout, self.tally(*words).stdout)
        self.assertNotEqual(self.tally(*words).stdout, self.tally(*words, "--seed", "2").stdout)

    def test_csv_json_and_svg_hold_a_run_for_each_setting(self):
        done = self.tally("plan", *DOORS, "--sync", "50ms,100ms", "--rtt", "1ms,20ms", "--loss", "0,0.05", "--json", "--csv",
                          "a.csv", "--svg", "a.svg")
        rows = list(csv.DictReader(io.StringIO((self.folder / "a.csv").read_text())))
        runs = json.loads(done.stdout)
        self.assertEqual(8, len(rows))
        self.assertEqual([{name: float(value) for name, value in row.items()} for row in rows], runs)
        self.assertEqual({(sync, rtt, loss) for sync in (50, 100) for rtt in (1, 20) for loss in (0, 0.05)},
                         {(one["sync_ms"], one["rtt_ms"], one["loss"]) for one in runs})
        for one in runs:
            self.assertEqual((400, 400, 100, 105), (one["requests"], one["offered"], one["admissible"], one["bound"]))
            self.assertEqual(one["admissible"] - one["undercount"], one["admitted"] - one["overcount"])
            self.assertLessEqual(one["admitted"], 105)
            self.assertGreater(one["bytes_per_s"], 0)
        name = "{http://www.w3.org/2000/svg}"
        root = xml.parse(self.folder / "a.svg").getroot()
        self.assertEqual(name + "svg", root.tag)
        self.assertEqual(3 * 4, len(root.findall(name + "polyline")))
        self.assertIn("sync interval", [text.text for text in root.findall(name + "text")])
        self.assertEqual(["a.csv", "a.svg"], sorted(path.name for path in self.folder.iterdir()))

    def test_a_rule_of_a_month_begins_with_one(self):
        rule = "algorithm=fixed_window limit=100 window=month"
        done = self.tally("plan", rule, *DOORS[1:], "--sync", "100ms")
        self.assertEqual("100 per month, fixed_window, overcount 5%", done.stdout.splitlines()[0])
        (one,) = json.loads(self.tally("plan", rule, *DOORS[1:], "--sync", "100ms", "--json").stdout)
        self.assertEqual((100, 105), (one["admissible"], one["bound"]))
        self.assertLessEqual(one["admitted"], 105)
        tried = [json.loads(line) for line in self.tally("try", rule, "--rps", "1", "--for", "2s", "--json").stdout.splitlines()]
        self.assertEqual([31 * 86400e3, 31 * 86400e3 - 1e3], [one["reset_after_ms"] for one in tried])
        self.refused("rule: window: a sliding_window has a length and no place in the calendar: set \"algorithm\" to \"fixed_window\" "
                     "to count by the month, or give a length such as \"30d\"", "try", "limit=100 window=month")

    def test_a_strict_rule_keeps_its_limit(self):
        (one,) = json.loads(self.tally("plan", DOORS[0] + " max_overcount=0", *DOORS[1:], "--sync", "100ms",
                                       "--json").stdout)
        self.assertEqual((100, 0), (one["admitted"], one["overcount"]))

    def test_json_may_stand_before_the_command(self):
        self.assertEqual(1, len(json.loads(self.tally("--json", "plan", *DOORS, "--sync", "100ms").stdout)))

    def test_a_trace_is_the_traffic(self):
        trace = self.write("time,key,cost,node\n" + "".join(f"{i / 10},user:{i % 2},2,{i % 3}\n" for i in range(100)), "t.csv")
        done = self.tally("plan", "limit=30 window=1m algorithm=fixed_window", "--trace", trace, "--sync", "100ms", "--json")
        (one,) = json.loads(done.stdout)
        self.assertEqual((100, 200, 60, 3), (one["requests"], one["offered"], one["admissible"], one["nodes"]))
        with open(trace) as stream:
            piped = subprocess.run([PROGRAMS["tally"], "plan", "limit=30 window=1m algorithm=fixed_window", "--trace", "-",
                                    "--sync", "100ms", "--json"], stdin=stream, capture_output=True, text=True, timeout=WAIT_S,
                                   check=True)
        self.assertEqual(done.stdout, piped.stdout)

    def test_a_web_servers_log_is_the_traffic(self):
        log = self.write("".join(LOG % (i % 4, i // 10) for i in range(200)), "access.log")
        done = self.tally("plan", "limit=40 window=1h algorithm=fixed_window", "--trace", log, "--sync", "100ms")
        self.assertIn("200 requests in 19.9s at 3 nodes (trace of 4 keys): offered 200, admissible 160", done.stdout)

    def test_a_rule_of_a_configuration_is_planned_on_its_fleet(self):
        config = self.write({"cluster": {"bind": "127.0.0.1:1", "size": 6, "peers": [f"127.0.0.1:{i}" for i in (1, 2, 3)]},
                             "rules": [{"name": "api", "limit": 7, "window": "1m"}]})
        done = self.tally("plan", "api", "-c", config, "--sync", "100ms")
        self.assertTrue(done.stdout.startswith("7 per 1m, sliding_window, overcount 5%\n"), done.stdout)
        self.assertIn(" at 6 nodes (", done.stdout)
        self.refused(f"{config}: no rule 'apo'", "plan", "apo", "-c", config)
        config.write_text('{"rules": [{"name": "api", "limit": 0, "window": "1m"}]}')
        self.refused(f"{config}:1:37: rules[0].limit: must be a whole number, 1 to 2147483648, got 0", "plan", "api", "-c",
                     config)

    def test_progress_is_shown_on_a_terminal_and_wiped_away(self):
        mine, its = pty.openpty()
        self.addCleanup(os.close, mine)
        with subprocess.Popen([PROGRAMS["tally"], "plan", *DOORS, "--sync", "50ms,100ms"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=its, text=True) as process:
            os.close(its)
            shown = b""
            while True:
                try:
                    part = os.read(mine, 4096)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                shown += part
            table, _ = process.communicate(timeout=WAIT_S)
        self.assertIn(b"run 1 of 2: 50ms sync, 500us round trip, 0% loss: 0%", shown)
        self.assertIn(b"run 2 of 2: 100ms sync", shown)
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown)
        self.assertNotIn("run 1", table)


class PlanRefuses(Planning):
    def test_bad_traces_by_file_line_and_column(self):
        self.write("time,key\n1,a\n2,\n", "t.csv")
        self.refused("t.csv:3:3: key: expected 1 to 1024 bytes, got 0", "plan", "limit=5 window=1m", "--trace", "t.csv", "--csv",
                     "out.csv", "--svg", "out.svg")
        self.write("time,key,node\n1,a,5\n", "t.csv")
        self.refused("t.csv:2:5: node: expected a whole number, 0 to 4 (there are 5 nodes), got '5'", "plan", "limit=5 window=1m",
                     "--nodes", "5", "--trace", "t.csv")
        self.refused("none.csv: cannot be read: No such file or directory", "plan", "limit=5 window=1m", "--trace", "none.csv")
        self.refused("--trace and --load exclude each other: a trace says who asks when", "plan", "limit=5 window=1m", "--trace",
                     "t.csv", "--load", "2")

    def test_bad_rules_by_their_field(self):
        for message, rule in (
                ("rule: limit: must be a whole number, 1 to 2147483648, got 0", "limit=0 window=1m"),
                ('rule: window: is missing; a sliding_window needs "limit" and "window"; windo: unknown field; did you mean '
                 '"window"?', "limit=5 windo=1m"),
                ("rule: expected words such as limit=100 window=1m, got '100'", "100"),
                ("rule: expected words such as limit=100 window=1m, got nothing", "")):
            with self.subTest(rule):
                self.refused(message, "plan", rule)
        self.refused("plan: a rule is missing, such as 'limit=1000 window=1m'", "plan")
        self.refused("plan: one rule at a time, in quotation marks; what is 'window=1m'?", "plan", "limit=5", "window=1m")

    def test_bad_options_by_what_is_allowed(self):
        for message, *words in (
                ("--shape: no shape 'burts', only even, two_of_ten, one_node, zipf, moving, step, flood, burst; did you mean "
                 "'burst'?", "--shape", "burts"),
                ("--nodes: must be 1 to 1000, got 0", "--nodes", "0"),
                ("--load: expected a part such as 0.05 or 5%, 0 to 1000 (0% to 100000%), got 'much'", "--load", "much"),
                ("--loss: expected a part such as 0.05 or 5%, 0 to 0.9 (0% to 90%), got '1'", "--loss", "0,1"),
                ('--sync: must be a duration such as "100ms" or "1m", got "100": the unit is missing (ns, us, ms, s, m, h or d)',
                 "--sync", "100"),
                ("--sync: must be 1ms to 1m, got 1h", "--sync", "100ms,1h"),
                ("--rtt: must be 0s to 10s, got 11s", "--rtt", "11s"),
                ("--for: must be 1ms to 31d, got 32d", "--for", "32d"),
                ("--load and --for make 1.49e+09 requests; 50000000 at most", "--for", "31d", "--load", "1000"),
                ("--sync, --rtt and --loss make 1200 runs; 1000 at most", "--sync", ",".join(["1s"] * 40), "--rtt",
                 ",".join(["1ms"] * 30))):
            with self.subTest(words):
                self.refused(message, "plan", "limit=1000 window=30m", *words)

    def test_files_that_cannot_be_written_before_anything_is_run(self):
        where = self.folder / "none" / "a.csv"
        self.refused(f"{where}: cannot be written: No such file or directory", "plan", *DOORS, "--csv", where)
        self.refused(f"{self.folder}: cannot be written: Is a directory", "plan", *DOORS, "--svg", self.folder)

    def test_a_file_is_replaced_whole_and_a_link_stays_a_link(self):
        (self.folder / "real.csv").write_text("before\n" * 10_000)
        (self.folder / "link.csv").symlink_to("real.csv")
        self.tally("plan", *DOORS, "--sync", "100ms", "--csv", "link.csv")
        self.assertTrue((self.folder / "link.csv").is_symlink())
        self.assertEqual(2, len((self.folder / "real.csv").read_text().splitlines()))
        done = self.tally("plan", *DOORS, "--sync", "100ms", "--csv", "/dev/stdout")
        self.assertTrue(done.stdout.startswith("sync_ms,rtt_ms,"), done.stdout)


class Try(Planning):
    def test_few_requests_are_listed_and_many_plotted(self):
        done = self.tally("try", "limit=5 window=1m algorithm=fixed_window", "--rps", "0.2", "--for", "1m")
        lines = done.stdout.splitlines()
        self.assertEqual("5 per 1m, fixed_window, overcount 5%", lines[0])
        self.assertEqual(["admitted"] * 5 + ["limited"] * 7, [line.split()[1] for line in lines[2:14]])
        self.assertEqual("    25.000s  limited   0 left, try again in 35s", lines[7])
        self.assertEqual("5 of 12 requests admitted in 1m, the first refused at 25s", lines[15])
        done = self.tally("try", "limit=100 window=1m", "--rps", "3", "--for", "2m", "--svg", "t.svg")
        self.assertEqual("", done.stderr)
        self.assertIn("of 360 requests admitted in 2m, the first refused at 33.3s\n", done.stdout)
        self.assertEqual(24, sum(" of 15\n" in line for line in done.stdout.splitlines(keepends=True)))
        self.assertEqual("{http://www.w3.org/2000/svg}svg", xml.parse(self.folder / "t.svg").getroot().tag)

    def test_json_is_a_line_for_each_request(self):
        done = self.tally("try", "rate=1/s burst=2 algorithm=token_bucket", "--rps", "4", "--for", "2s", "--json")
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([0, 250, 500, 750, 1000, 1250, 1500, 1750], [one["at_ms"] for one in answers])
        self.assertEqual([True, True, False, False, True, False, False, False], [one["allowed"] for one in answers])
        self.assertEqual(500, answers[2]["retry_after_ms"])

    def test_what_is_wrong_is_said(self):
        self.refused("try: a rule is missing, such as 'limit=100 window=1m'", "try")
        for message, *words in (
                ("--rps: must be above 0 and at most 1000000 a second", "--rps", "0"),
                ("--for: must be above 0 and at most 366d", "--for", "0"),
                ("--cost: must be 1 to 2147483648", "--cost", "0"),
                ("--rps and --for make 60000000 requests; 10000000 at most", "--rps", "1000000"),
                ("none/t.svg: cannot be written: No such file or directory", "--svg", "none/t.svg")):
            with self.subTest(words):
                self.refused(message, "try", "limit=5 window=1m", *words)
        done = self.tally("try", "limit=5 window=1m", "--bogus", code=2)
        self.assertEqual("", done.stdout)


if __name__ == "__main__":
    main(sys.argv)
