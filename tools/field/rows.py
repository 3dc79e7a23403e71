"""What a case measured, beside what was promised: rows of a table, and of a JSON file."""
import statistics


class Row:
    """One measured thing of a case. `values` has one figure a run; the worst of them decides whether the promise was kept."""

    def __init__(self, case, what, promised, values, unit="", worst=max, kept=None):
        self.case, self.what, self.promised, self.unit = case, what, promised, unit
        self.values, self.worst_of, self.kept = list(values), worst, kept

    @property
    def median(self):
        return statistics.median(self.values) if self.values else None

    @property
    def worst(self):
        return self.worst_of(self.values) if self.values else None

    def as_json(self):
        return {"case": self.case, "what": self.what, "promised": self.promised, "unit": self.unit, "median": self.median,
                "worst": self.worst, "runs": len(self.values), "kept": self.kept, "values": self.values}


def at_most(case, what, limit, values, unit=""):
    """Promised of every run."""
    values = list(values)
    return Row(case, what, f"<= {figure(limit)} {unit}".strip(), values, unit, max, bool(values) and max(values) <= limit)


def at_least(case, what, limit, values, unit=""):
    values = list(values)
    return Row(case, what, f">= {figure(limit)} {unit}".strip(), values, unit, min, bool(values) and min(values) >= limit)


def holds(case, what, kept):
    """A thing that is so or not, in each of the runs (a list of truths)."""
    kept = list(kept)
    return Row(case, what, "always", [int(each) for each in kept], "", min, bool(kept) and all(kept))


def shown(case, what, values, unit="", worst=max):
    """Measured, and nothing promised of it."""
    return Row(case, what, "-", values, unit, worst)


def figure(number):
    if number is None:
        return "-"
    if isinstance(number, float) and not number.is_integer():
        return f"{number:.3f}" if abs(number) < 1 else f"{number:.1f}"
    return f"{int(number)}"


VERDICT = {True: "kept", False: "BROKEN", None: ""}


def table(rows):
    """Lines of text, columns aligned."""
    cells = [("case", "measured", "promised", "median", "worst", "runs", "")]
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        cells.append((row.case, row.what, row.promised, figure(row.median) + unit, figure(row.worst) + unit, str(len(row.values)),
                      VERDICT[row.kept]))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
