"""An owner's books for windows, by docs/protocol.md, "The conversation": marks before grants, all numbers cumulative."""
from wire import Entry


class Line:
    def __init__(self, floor):
        self.floor, self.granted, self.report, self.sender, self.incarnation = floor, 0, None, None, 0
        self.used = self.returned = 0

    def outstanding(self):
        return self.floor + self.granted - self.returned


class Owner:
    """Of all (key, window) that it is asked for. Use as Owner(node, limit)."""

    def __init__(self, node, limit, counter=0):
        self.node, self.limit, self.ballot, self.base = node, limit, (counter, node.id), 0
        self.lines, self.proposed, self.accepted = {}, {}, {}  # by (key, window) (and line)
        node.answers["report"], node.answers["accepted"] = self.on_report, self.on_accepted

    def of(self, place):
        return [line for key, line in self.lines.items() if key[:2] == place]

    def used(self, place):
        return sum(line.used for line in self.of(place))

    def on_report(self, report, header):
        place = (report.key, report.window)
        ours = report.ballot == self.ballot and report.has_ballot
        floor = 0 if report.has_ballot else report.floor
        line = self.lines.setdefault(place + (header.sender, header.incarnation, report.line), Line(floor))
        line.sender, line.incarnation, line.report, line.ours = self.node.names[header.sender], header.incarnation, report, ours
        line.used = max(line.used, report.used)
        if ours:
            line.returned = max(line.returned, report.returned)
        return self.issue(place, line, report.stamp)

    def on_accepted(self, accepted, header):
        """Of a group of two the other member's is a majority, with the owner's own."""
        place = (accepted.key, accepted.window)
        if accepted.refused or accepted.claim or accepted.ballot != self.ballot:
            return []
        self.accepted[place] = max(self.accepted.get(place, 0), accepted.mark)
        return [grant for line in self.of(place) if self.needs(line) for grant in self.issue(place, line, 0)]

    def spent(self, line):
        return line.ours and line.report.granted_heard == line.granted and line.report.ceiling <= line.used + line.returned

    def needs(self, line):
        heard = line.report.granted_heard if line.ours else 0
        return max(0, line.report.wanted - line.report.ceiling - (line.granted - heard))

    def issue(self, place, line, stamp):
        outstanding = self.base + sum(one.outstanding() for one in self.of(place))
        back = []
        mark = min(self.limit, outstanding + self.needs(line))
        if mark > self.proposed.get(place, 0):
            self.proposed[place] = mark
            back.append(Entry("mark", key=place[0], window=place[1], ballot=self.ballot, mark=mark, length=line.report.length))
        line.granted += min(self.needs(line), max(0, min(self.limit, self.accepted.get(place, 0)) - outstanding))
        exhausted = outstanding >= self.limit and all(self.spent(one) for one in self.of(place))
        back.append(Entry("grant", key=place[0], window=place[1], ballot=self.ballot, line=line.report.line, incarnation=line.incarnation,
                          granted=line.granted, used_fleet=self.used(place), stamp=stamp, backed=1, exhausted=exhausted,
                          pool=max(0, self.limit - outstanding) * 255 // self.limit, ask_again=3_600_000_000_000 if exhausted else 0))
        return back
