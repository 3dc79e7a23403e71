"""The sync interval of a running fleet is changed by reload, node by node: the bound holds, and undercount and traffic before and after are what
`tally plan` says of the same requests.
"""
import json
import signal
import subprocess

from fleet import DemoError, as_map, wait_for
from hosts import HostFleet, on_hosts
from network import Network
from rows import at_most, holds, shown
from timeline import Timeline, undisturbed
from weather import uneven

HOSTS = [f"h{n}" for n in range(1, 7)]
LIMIT, WINDOW_S, OVERCOUNT = 1000, 10, "5%"
FROM_MS, TO_MS, DELAY_MS = 100, 500, 20
STAGES = {"before": (0, 1), "mixed": (2, 3), "after": (4, 5)}  # which windows
RULE = {"name": "steady", "algorithm": "fixed_window", "limit": LIMIT, "window": f"{WINDOW_S}s", "max_overcount": OVERCOUNT, "on_isolation": "closed", "wait": "0ms"}
UNDER, OVER = 0.92, 1.3
APART_PERCENT, BYTES_APART = 2.0, 1.15  # as in tools/plan_check.py
READ_AGAIN = "the configuration was read again"  # the daemon's log
IP_UDP_BYTES = 28                       # a datagram's headers, which the plan counts and the daemon's metric does not
SEAL_BYTES = 47                         # of a datagram between hosts with a secret, which the metric counts and the plan does not


def reload(node, by_signal):
    def times():
        return node.child.log.read_text(errors="replace").count(READ_AGAIN)

    before = times()
    if by_signal:
        node.child.process.send_signal(signal.SIGHUP)
        wait_for(lambda: times() > before, f"{node.name} did not say that it had read its file again")
    elif node.ask("TALLY.RELOAD") != "OK":
        raise DemoError(f"{node.name} refused the new interval")


class Change:
    def __init__(self, ground, fleet):
        self.ground, self.fleet = ground, fleet
        self.keys = {"under": ground.fresh_key(), "over": ground.fresh_key()}
        self.sent = {}
        windows = [n for stage in STAGES.values() for n in stage]
        self.line = Timeline(ground.place, WINDOW_S, {f"w{n}": (n * WINDOW_S, (n + 1) * WINDOW_S) for n in windows}, ground.random.random())
        for part, key in ((UNDER, "under"), (OVER, "over")):
            for share, node in zip(uneven(fleet.nodes), fleet.nodes):
                self.line.ask(RULE["name"], self.keys[key], node, part * share * LIMIT / WINDOW_S)
        half = len(fleet.nodes) // 2
        self.line.at(STAGES["mixed"][0] * WINDOW_S, lambda: self.change(fleet.nodes[:half], TO_MS, True))
        self.line.at(STAGES["after"][0] * WINDOW_S, lambda: self.change(fleet.nodes[half:], TO_MS, False))
        for stage in ("before", "after"):
            first, last = STAGES[stage]
            self.line.at(first * WINDOW_S + 0.01, lambda stage=stage: self.count(stage))  # after the change
            self.line.at((last + 1) * WINDOW_S - 0.01, lambda stage=stage: self.count(stage))
        self.line.run()

    def change(self, nodes, ms, by_signal):
        for node in nodes:
            self.fleet.configure(node, sync_interval=f"{ms}ms")
            reload(node, by_signal)

    def count(self, stage):
        self.sent.setdefault(stage, []).append(
            self.fleet.sum("tallyd_sync_bytes_total", direction="out") + IP_UDP_BYTES * self.fleet.sum("tallyd_sync_datagrams_total", direction="out"))

    def admitted(self, stage, key=None):
        return [self.line.admitted(phases=[f"w{n}"], keys=[self.keys[key]] if key else None) for n in STAGES[stage]]

    def measured(self, stage):
        """(undercount in % of what could be admitted, bytes a second and node)"""
        possible = len(STAGES[stage]) * (round(UNDER * LIMIT) + LIMIT)
        (first, last), windows = self.sent[stage], STAGES[stage]
        return 100 * max(0, possible - sum(self.admitted(stage))) / possible, (last - first) / (len(windows) * WINDOW_S) / len(self.fleet.nodes)

    def planned(self, stage, sync_ms):
        """The same of `tally plan`, which is given the stage's requests."""
        begin = STAGES[stage][0] * WINDOW_S
        phases = {f"w{n}" for n in STAGES[stage]}
        trace = self.ground.place.path / "trace.csv"
        requests = sorted((at - begin, key, node.host) for at, _, key, node, phase in self.line.requests if phase in phases)
        trace.write_text("time,key,cost,node\n" + "".join(f"{at:.6f},{key},1,{HOSTS.index(host)}\n" for at, key, host in requests))
        terms = f"limit={LIMIT} window={WINDOW_S}s max_overcount={OVERCOUNT} wait=0 algorithm=fixed_window"
        done = subprocess.run([self.ground.place.program("tally"), "plan", terms, "--nodes", str(len(HOSTS)), "--trace", str(trace),
                               "--sync", f"{sync_ms}ms", "--rtt", f"{2 * DELAY_MS}ms", "--json"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(done.stderr)
        figures = json.loads(done.stdout)[0]
        possible = len(phases) * (round(UNDER * LIMIT) + LIMIT)
        return 100 * max(0, possible - figures["admitted"]) / possible, figures["bytes_per_s"] + SEAL_BYTES * figures["datagrams_per_s"]

    def rows(self):
        bound = as_map(self.fleet.nodes[0].ask("TALLY.EXPLAIN", RULE["name"], self.keys["over"]))["bound"]
        for stage in STAGES:
            case = f"interval, {stage}"
            yield at_most(case, "admitted in a window, the bound", bound, self.admitted(stage, "under") + self.admitted(stage, "over"))
            yield shown(case, f"admitted of {100 * UNDER:.0f} % of L", [100 * n / (UNDER * LIMIT) for n in self.admitted(stage, "under")], "%", min)
        for stage, sync_ms in (("before", FROM_MS), ("after", TO_MS)):
            case = f"interval, {stage}, {sync_ms} ms"
            (under, rate), (plan_under, plan_rate) = self.measured(stage), self.planned(stage, sync_ms)
            yield shown(case, "undercount planned", [plan_under], "%")
            yield at_most(case, "undercount, apart from what was planned", APART_PERCENT, [abs(under - plan_under)], "%")
            yield shown(case, "bytes a second and node planned, sealed", [plan_rate])
            yield shown(case, "bytes a second and node", [rate])
            yield holds(case, f"bytes within {BYTES_APART} times of the plan", [max(rate, plan_rate) <= BYTES_APART * min(rate, plan_rate)])


def interval(ground):
    ground.say(f"interval: {FROM_MS} ms, then {TO_MS} ms at half of the nodes, then at all; {2 * len(STAGES)} windows of {WINDOW_S} s, {DELAY_MS} ms each way")
    with Network(HOSTS) as network:
        network.set("*", "*", delay=DELAY_MS)

        def once():
            fleet = HostFleet(ground.place, network, [RULE], sync_interval=f"{FROM_MS}ms", lease="5s")
            try:
                return list(Change(ground, fleet).rows())
            finally:
                fleet.stop()
        yield from undisturbed(ground.say, once)


CASES = {"interval": (on_hosts("interval", interval), "the sync interval is changed by reload, node by node")}
