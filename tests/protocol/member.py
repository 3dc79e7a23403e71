"""A member's register of marks: docs/protocol.md, "mark" and "accepted". Of buckets (window 0) it keeps no time: for tests of seconds."""
from wire import NO_BALLOT, Entry


class Register:
    def __init__(self):
        self.promised, self.promised_life, self.mark_ballot, self.mark, self.length = NO_BALLOT, 0, NO_BALLOT, 0, 0


class Member:
    def __init__(self, node):
        self.node, self.kept = node, {}  # (key, window) -> Register
        self.silent = False              # as if it had no vote
        self.previous = {}               # key -> (ballot, mark) that it tells of the window before

    def on_mark(self, mark, header):
        if self.silent or mark.ballot[1] != header.sender:
            return []
        register = self.kept.setdefault((mark.key, mark.window), Register())
        answer = Entry("accepted", key=mark.key, window=mark.window, mark=register.mark, ballot=register.promised, number=mark.number,
                       claim=mark.claim)
        other_life = mark.claim and mark.ballot == register.promised and register.promised_life != mark.number
        if mark.ballot < register.promised or other_life:
            answer.values["refused"] = 1
            return [answer]
        register.promised = answer.values["ballot"] = mark.ballot
        register.length = mark.length
        if mark.claim:
            register.promised_life = mark.number
        else:
            register.mark_ballot, register.mark = mark.ballot, max(register.mark, mark.mark)
            answer.values["mark"] = register.mark if mark.window else mark.mark
        if mark.sliding:
            ballot, before = self.previous.get(mark.key, (NO_BALLOT, 0))
            answer.values.update(previous_told=1, previous_ballot=ballot, previous_mark=before)
        return [answer]

    def tell(self, read):
        """Its registers, as to a node that has forgotten its own; few enough to fit a datagram."""
        told = [Entry("registered", key=key, life=read.life, snapshot=1, index=i, window=window, length=kept.length, promised=kept.promised,
                      mark_ballot=kept.mark_ballot, mark=kept.mark, promised_life=kept.promised_life)
                for i, ((key, window), kept) in enumerate(self.kept.items())]
        return told + [Entry("registers_end", life=read.life, snapshot=1, count=len(told), votes_from=-(1 << 63), clock=0,
                             remembers=(1 << 63) - 1, **{"from": getattr(read, "from")})]
