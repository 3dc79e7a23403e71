#!/usr/bin/env python3
"""A node written from docs/protocol.md in a fleet with a real tallyd: protocol_process_test.py TALLYD TALLY [TEST...]

Every conversation of that page, as either side of it; all of it once more under a secret.
"""
import pathlib
import socket
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import WAIT_S, Plain  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "protocol"))
import hashes  # noqa: E402
from fleet import BURST, DAY_NS, FINGERPRINT, LIMIT, MANY, PLENTY, TOKEN_NS, FleetOfTwo  # noqa: E402
from owner import Owner  # noqa: E402
from seal import unseal  # noqa: E402
from wire import Entry, decode  # noqa: E402

NEVER = (1 << 63) - 1


class Talk(FleetOfTwo):
    def test_a_start_is_hello_and_answer_and_both_know_each_other(self):
        self.fleet()
        self.assertEqual(self.node.hear("hello", answer=0).rules, FINGERPRINT)
        self.node.send(self.peer, Entry("hello", rules=FINGERPRINT))
        answer = self.node.hear("hello", answer=1)
        self.assertEqual((answer.life, answer.rules, answer.remembered), (self.node.incarnation, FINGERPRINT, 0))
        self.both_are_up()
        self.assertEqual(self.metrics()[f'tallyd_peer_rules_mismatch{{peer="{self.node.entry}"}}'], 0)
        self.nothing_was_dropped()

    def test_a_request_is_admitted_because_the_node_granted_it_and_denied_when_it_said_exhausted(self):
        self.fleet()
        owner = Owner(self.node, LIMIT)
        key = self.node.key_owned_by("login", self.node.entry)
        place = self.place(key)
        self.assertEqual([self.take(key)[0] for _ in range(LIMIT)], [0] * LIMIT)
        report = self.node.said("report")[0]
        self.assertEqual((report.key, report.window, report.rule, report.limit, report.length, report.algorithm),
                         (*place, hashes.rule_number("login"), LIMIT, DAY_NS, 1))
        self.node.wait_for(lambda: owner.used(place) == LIMIT, "not told what was used")
        self.assertEqual(owner.accepted[place], LIMIT)  # by the daemon, before it was granted
        denied = self.take(key)
        self.assertEqual((denied[0], denied[5]), (1, 1))
        self.nothing_was_dropped()

    def test_the_node_is_granted_what_it_asks_for_once_it_has_accepted_the_mark_and_the_rest_is_the_daemons(self):
        self.fleet()
        key = self.node.key_owned_by("login", self.peer)
        id_, window = self.place(key)
        self.node.member.silent = True
        self.node.send(self.peer, self.report(key, 3))
        mark = self.node.hear("mark", key=id_, window=window, claim=0)
        self.assertEqual((mark.ballot, mark.length, mark.mark >= 3), ((0, self.daemon_id), DAY_NS, True))
        self.assertEqual(self.node.hear("grant", key=id_).granted, 0)  # one of two is no majority
        self.node.member.silent = False
        grant = self.ask_for(key, 3)
        self.assertEqual((grant.window, grant.ballot, grant.line, grant.incarnation, grant.backed),
                         (window, (0, self.daemon_id), 1, self.node.incarnation, 1))
        got = self.spend(key, grant)
        self.assertEqual([self.take(key)[0] for _ in range(LIMIT - got + 1)], [0] * (LIMIT - got) + [1])
        self.nothing_was_dropped()

    def test_what_the_node_returns_is_the_daemons(self):
        self.fleet()
        key = self.node.key_owned_by("login", self.peer)
        id_, _ = self.place(key)
        grant = self.ask_for(key, LIMIT)
        back = self.report(key, LIMIT, ballot=grant.ballot, has_ballot=1, used=1, returned=LIMIT - 1, ceiling=LIMIT, granted_heard=LIMIT,
                           waiting=0, waiting_min=0)
        self.node.send(self.peer, back)
        self.node.hear("grant", key=id_, stamp=back.stamp)
        self.assertEqual([self.take(key)[0] for _ in range(LIMIT)], [0] * (LIMIT - 1) + [1])
        self.nothing_was_dropped()

    def test_the_node_claims_a_key_is_told_the_largest_mark_and_grants_only_what_is_above_it(self):
        self.fleet()
        key = self.node.key_owned_by("login", self.peer)
        id_, window = self.place(key)
        self.assertEqual([self.take(key)[0] for _ in range(2)], [0, 0])
        ballot = (1, self.node.id)
        owner = Owner(self.node, LIMIT, counter=1)
        with self.node.lock:  # it promises itself first
            own = self.node.member.kept[id_, window]
            own.promised, own.promised_life = ballot, self.node.incarnation
        claim = Entry("mark", key=id_, window=window, length=DAY_NS, ballot=ballot, claim=1, number=self.node.incarnation)
        self.node.send(self.peer, claim)
        promise = self.node.hear("accepted", key=id_, claim=1)
        self.assertEqual((promise.ballot, promise.refused, promise.number, promise.mark >= 2), (ballot, 0, self.node.incarnation, True))
        owner.base = max(promise.mark, own.mark)
        replies = [self.take(key)[0] for _ in range(LIMIT - 2 + 1)]
        self.assertGreaterEqual(replies.count(0), LIMIT - owner.base)  # and what the daemon had granted itself under the mark
        self.assertEqual(replies[-1], 1)
        self.assertLessEqual(owner.proposed[id_, window], LIMIT)
        # What is lower is refused from then on, with the ballot that is promised.
        self.node.send(self.peer, Entry("mark", key=id_, window=window, length=DAY_NS, ballot=(0, self.node.id), mark=LIMIT))
        self.until(lambda: self.dropped().get("not_member") == 1, "a ballot of counter 0 by another than the natural owner was taken")
        self.node.send(self.peer, Entry("mark", key=id_, window=window, length=DAY_NS, ballot=ballot, claim=1, number=1))
        self.assertEqual(self.node.hear("accepted", key=id_, refused=1).ballot, ballot)  # another life of the node has no promise

    def test_the_daemon_tells_its_registers_to_a_later_life_of_the_node(self):
        self.fleet()
        key = self.node.key_owned_by("login", self.peer)
        id_, window = self.place(key)
        self.assertEqual(self.take(key)[0], 0)
        self.node.send(self.peer, Entry("read_registers", life=self.node.incarnation))
        end = self.node.hear("registers_end", life=self.node.incarnation)
        told = self.node.said("registered", life=self.node.incarnation, snapshot=end.snapshot)
        self.assertEqual((end.count, [entry.index for entry in told]), (1, [0]))
        self.assertEqual((told[0].key, told[0].window, told[0].length, told[0].promised, told[0].mark_ballot),
                         (id_, window, DAY_NS, (0, self.daemon_id), (0, self.daemon_id)))
        self.assertEqual(told[0].mark, self.node.member.kept[id_, window].mark)

    def test_a_daemon_that_restarts_reads_the_nodes_registers_and_begins_with_the_mark_there(self):
        self.fleet()
        key = self.node.key_owned_by("plenty", self.peer)
        id_, window = self.place(key, "plenty")
        self.until(lambda: self.take(key, "plenty")[0] == 0, "not admitted")
        self.assertEqual(self.daemon.end(), 0)
        self.begin()
        read = self.node.hear("read_registers")  # and all that was said before it
        self.assertEqual(getattr(read, "from"), 0)
        mark = self.node.member.kept[id_, window].mark
        self.assertTrue(0 < mark < PLENTY)
        # The daemon claims, the node promises and tells the mark; what is above it can be had.
        self.until(lambda: self.take(key, "plenty", PLENTY - mark)[0] == 0, "what is above the mark is not admitted")
        kept = self.node.member.kept[id_, window]
        self.assertEqual((kept.promised, kept.promised_life, kept.mark), ((1, self.daemon_id), read.life, PLENTY))
        self.assertEqual(self.metrics()['tallyd_claims_total{outcome="won"}'], 1)
        self.assertEqual(self.take(key, "plenty")[0], 1)

    def test_a_reset_travels_both_ways(self):
        self.fleet()
        Owner(self.node, LIMIT)
        key = self.node.key_owned_by("login", self.node.entry)
        id_, _ = self.place(key)
        self.assertEqual([self.take(key)[0] for _ in range(LIMIT + 1)], [0] * LIMIT + [1])
        self.node.send(self.peer, Entry("reset", key=id_, number=time.time_ns()))
        self.until(lambda: self.take(key)[0] == 0, "the daemon heard of no reset")
        before = time.time_ns()
        Plain(self.daemon).ask("TALLY.RESET", "login", key)
        self.node.hear("reset", key=id_, number=lambda n: n >= before)
        self.nothing_was_dropped()

    def test_who_uses_the_nodes_name_from_elsewhere_is_told_so_there(self):
        self.fleet()
        self.both_are_up()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
            elsewhere.bind(("127.0.0.1", 0))
            elsewhere.settimeout(WAIT_S)
            with self.node.lock:
                self.node.send_bytes(self.peer, self.node.bytes_to(self.peer, Entry("hello")), through=elsewhere)
            data = elsewhere.recv(4096)
        said = decode(unseal(data, self.node.keys) if self.secret else data, self.node.key)
        self.assertEqual(said.entries, [Entry("clone", incumbent=self.node.incarnation, told=self.node.incarnation, elsewhere=1)])
        self.assertEqual(self.dropped(), {"wrong_source": 1})

    def test_a_change_of_the_list_is_over_when_the_node_has_said_that_it_left(self):
        now, then = {"version": 2, "hash": hashes.roster_hash(4, self.entries, [], self.node.key)}, self.node.roster_hash
        self.node.rosters = {(1, then), (2, now["hash"])}
        self.fleet(roster_version=2, size=4, previous={"roster_version": 1, "size": 2, "peers": self.entries})
        self.node.hear("moved", node=self.daemon_id, **now)
        self.assertEqual(self.metrics()["tallyd_roster_settled"], 0)
        self.node.send(self.peer, Entry("moved", node=self.node.id, leaves=NEVER, **now))
        leaves = self.node.hear("moved", node=self.daemon_id, leaves=lambda t: t != NEVER).leaves
        self.node.send(self.peer, Entry("moved", node=self.node.id, leaves=leaves, left_buckets=1, **now))
        self.assertGreater(self.node.hear("moved", node=0, **now).leaves, 0)
        self.assertEqual(self.metrics()["tallyd_roster_settled"], 1)
        self.assertEqual(self.node.heard[-1].header.roster_version, 2)

    def test_a_sliding_windows_owner_counts_what_the_node_tells_of_the_window_before(self):
        self.fleet()
        key = self.node.key_owned_by("slide", self.peer)
        id_, window = self.place(key, "slide")
        self.node.member.previous[id_] = ((1, self.node.id), MANY)  # it was full
        left = MANY - -(-MANY * (DAY_NS * (window + 1) - time.time_ns()) // DAY_NS)
        admitted = sum(self.take(key, "slide")[0] == 0 for _ in range(left))
        self.assertEqual(admitted, left)
        self.assertEqual(self.take(key, "slide")[5], 1)
        self.assertTrue(self.node.said("mark", key=id_, sliding=1))

    def test_a_lease_of_the_nodes_is_spent_and_no_more(self):
        self.fleet()
        key = self.node.key_owned_by("feed", self.node.entry)
        asked, leased = [], 2 * TOKEN_NS
        number = self.node.incarnation << 20

        def on_report(report, _):
            asked.append(report)
            return [Entry("mark", key=report.key, ballot=(0, self.node.id), mark=leased + 10**9, length=400 * 10**9, number=number)]

        def on_accepted(accepted, header):
            self.assertEqual((accepted.window, accepted.number, accepted.mark), (0, number, leased + 10**9))
            report = asked[-1]
            over = report.lease == number and report.used == leased
            return [Entry("grant", key=report.key, ballot=(0, self.node.id), line=report.line, incarnation=header.incarnation, granted=leased,
                          lease=number, lease_for=60 * 10**9, tat_ahead=leased, pool=255, stamp=report.stamp, backed=1, exhausted=over,
                          ask_again=60 * 10**9 if over else 0)]

        self.node.answers.update(report=on_report, accepted=on_accepted)
        self.assertEqual([self.take(key, "feed")[0] for _ in range(2)], [0, 0])
        self.assertEqual(self.take(key, "feed")[5], 1)
        self.assertEqual((asked[0].algorithm, asked[0].limit, asked[0].emission, asked[0].window), (2, BURST, TOKEN_NS, 0))

    def test_the_node_is_leased_tokens_by_the_daemon(self):
        self.fleet()
        key = self.node.key_owned_by("feed", self.peer)
        id_, _ = self.place(key, "feed")
        stamps = []

        def report():
            stamps.append(time.monotonic_ns())
            return Entry("report", key=id_, rule=hashes.rule_number("feed"), limit=BURST, emission=TOKEN_NS, algorithm=2, line=1,
                         wanted=2 * TOKEN_NS, waiting=2 * TOKEN_NS, waiting_min=TOKEN_NS, stamp=stamps[-1])

        grant = self.node.ask(self.peer, report, "grant", key=id_, granted=lambda n: n >= 2 * TOKEN_NS)
        self.assertEqual((grant.ballot, grant.window), ((0, self.daemon_id), 0))
        self.assertTrue(grant.stamp in stamps and grant.lease > 0 and grant.lease_for > 0 and grant.tat_ahead > TOKEN_NS)
        mark = self.node.said("mark", key=id_)[-1]
        self.assertTrue(mark.window == 0 and mark.number > 0 and mark.length > BURST * TOKEN_NS)
        self.nothing_was_dropped()


class SealedTalk(Talk):
    sealed = True


if __name__ == "__main__":
    processes.main(sys.argv)
