#!/usr/bin/env python3
"""Carries IP packets between the TUN devices of hosts, as well or as badly as it is told: packets.py SEED NAME=DESCRIPTOR=ADDRESS[,ADDRESS]...

network.py starts it. What comes out of a host's device goes into the one that has the packet's destination; the packet stays as it is, source
address included. For each ordered pair of hosts there is a link of its own, so what happens one way need not happen the other.

Lines in, one line out for each, in order; the end of input ends it. FROM and TO are names with commas, or `*`:
  set FROM TO [delay=MS] [jitter=MS] [loss=PART] [duplicate=PART] [reorder=PART] [hold=MS] [queue=PACKETS]
                    what is not named stays. `jitter` is up to so much more, and keeps the order; a packet that is reordered is held so much
                    longer, so that those behind it pass
  cut FROM TO [udp|tcp]   nothing crosses from the answer on, what is on its way neither; or nothing of that protocol
  join FROM TO      the contrary, of all
  count             {"FROM TO": {"passed": ..., "lost": ..., ...}} of all links that carried or dropped something, {"": {"nowhere": ...}} for packets
                    that are for no host

One thread and one epoll descriptor. Delays end at whole milliseconds after the one that was asked for, never earlier.
"""
import heapq
import ipaddress
import json
import os
import random
import select
import sys
import time

PACKET_MAX = 2048      # more than the devices' 1,500
AT_ONCE = 64           # packets of one host before the others have their turn
QUEUE = 2000           # packets on their way on one link; what comes beyond is dropped
HOLD_S = 0.010
PROTOCOLS = {"tcp": 6, "udp": 17}
COUNTS = ("passed", "lost", "cut", "full", "refused", "duplicated", "reordered")
PARTS, MILLISECONDS = ("loss", "duplicate", "reorder"), ("delay", "jitter", "hold")


class Link:
    """From one host to another. `out`: the descriptor of the other's device."""

    __slots__ = ("out", "is_cut", "barred", "plain", "delay", "jitter", "hold", "loss", "duplicate", "reorder", "queue", "waiting", "last_due", *COUNTS)

    def __init__(self, out):
        self.out, self.is_cut, self.plain, self.queue, self.waiting, self.last_due = out, False, True, QUEUE, 0, 0.0
        self.delay = self.jitter = self.loss = self.duplicate = self.reorder = 0.0
        self.hold = HOLD_S
        self.barred = None  # an IP protocol
        for name in COUNTS:
            setattr(self, name, 0)

    def change(self, words):
        for name, value in (word.split("=", 1) for word in words):
            if name in PARTS and 0 <= float(value) <= 1:
                setattr(self, name, float(value))
            elif name in MILLISECONDS and float(value) >= 0:
                setattr(self, name, float(value) / 1000)
            elif name == "queue" and int(value) >= 0:
                self.queue = int(value)
            else:
                raise ValueError(f"cannot set {name}={value}")
        self.plain = not (self.delay or self.jitter or self.loss or self.duplicate or self.reorder)

    def stops(self, packet):
        return self.is_cut or (self.barred is not None and packet[9 if packet[0] >> 4 == 4 else 6] == self.barred)

    def write(self, packet):
        if self.stops(packet):
            self.cut += 1
            return
        try:
            os.write(self.out, packet)
            self.passed += 1
        except OSError:  # the device is down or its host's queue is full
            self.refused += 1


class Relay:
    def __init__(self, seed, hosts):
        """`hosts`: {name: (descriptor, [addresses])}"""
        self.random = random.Random(seed)
        self.names = list(hosts)
        self.links = {a: {b: Link(hosts[b][0]) for b in hosts if b != a} for a in hosts}
        self.from_device = {device: {ipaddress.ip_address(address).packed: self.links[name][other]
                                     for other, (_, addresses) in hosts.items() if other != name for address in addresses}
                            for name, (device, _) in hosts.items()}
        self.on_their_way = []  # (due, number, link, packet)
        self.number = 0
        self.nowhere = 0
        self.poll = select.epoll()
        for device, _ in hosts.values():
            os.set_blocking(device, False)
            self.poll.register(device, select.EPOLLIN)
        self.poll.register(0, select.EPOLLIN)
        self.said = b""

    def run(self):
        while True:
            patience = max(0.0, self.on_their_way[0][0] - time.monotonic()) if self.on_their_way else -1
            for descriptor, _ in self.poll.poll(patience):
                if descriptor != 0:
                    self.take_in(descriptor)
                elif not self.hear():
                    return
            if self.on_their_way:
                self.deliver(time.monotonic())

    def take_in(self, device):
        links, read = self.from_device[device], os.read
        for _ in range(AT_ONCE):
            try:
                packet = read(device, PACKET_MAX)
            except BlockingIOError:
                return
            link = links.get(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])
            if link is None:  # also what the kernel says to all, as router solicitations
                self.nowhere += 1
            elif link.plain and not link.waiting:
                link.write(packet)
            else:
                self.send(link, packet, time.monotonic())

    def send(self, link, packet, now):
        if link.stops(packet):
            link.cut += 1
            return
        chance = self.random.random
        if chance() < link.loss:
            link.lost += 1
            return
        due = max(link.last_due, now + link.delay + chance() * link.jitter)
        if chance() < link.reorder:
            link.reordered += 1
            due += link.hold
        else:
            link.last_due = due
        copies = 1
        if chance() < link.duplicate:
            link.duplicated += 1
            copies = 2
        for _ in range(copies):
            if link.waiting >= link.queue:
                link.full += 1
                continue
            link.waiting += 1
            self.number += 1
            heapq.heappush(self.on_their_way, (due, self.number, link, packet))

    def deliver(self, now):
        waiting = self.on_their_way
        while waiting and waiting[0][0] <= now:
            _, _, link, packet = heapq.heappop(waiting)
            link.waiting -= 1
            link.write(packet)

    def hear(self):
        more = os.read(0, 65536)
        *lines, self.said = (self.said + more).split(b"\n")
        for line in lines:
            try:
                answer = self.obey(line.decode().split())
            except (ValueError, KeyError, IndexError) as problem:
                answer = f"error: {line.decode(errors='replace')}: {problem!r}"
            sys.stdout.write(answer + "\n")
        sys.stdout.flush()
        return bool(more)

    def obey(self, words):
        if words == ["count"]:
            return json.dumps(self.counted())
        verb, senders, receivers, *changes = words
        barred = PROTOCOLS[changes[0]] if verb == "cut" and len(changes) == 1 else None
        if verb not in ("set", "cut", "join") or (changes and verb != "set" and barred is None):
            raise ValueError("no such command")
        for sender in self.named(senders):
            for receiver in self.named(receivers):
                if receiver == sender:
                    continue
                link = self.links[sender][receiver]
                if verb == "set":
                    link.change(changes)
                else:
                    link.is_cut, link.barred = verb == "cut" and barred is None, barred
        return "ok"

    def named(self, text):
        return self.names if text == "*" else text.split(",")

    def counted(self):
        counts = {f"{a} {b}": {name: getattr(link, name) for name in COUNTS}
                  for a, links in self.links.items() for b, link in links.items()}
        return {"": {"nowhere": self.nowhere}, **{pair: each for pair, each in counts.items() if any(each.values())}}


def main(words):
    hosts = {}
    for word in words[2:]:
        name, device, addresses = word.split("=")
        hosts[name] = int(device), addresses.split(",")
    Relay(int(words[1]), hosts).run()


if __name__ == "__main__":
    main(sys.argv)
