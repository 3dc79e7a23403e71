"""The load generator of Redis's own tools, as a second opinion: what it measures cannot be the doing of a generator of ours."""
import csv
import pathlib
import re
import resource
import subprocess
import time

from servers import DemoError


def cpu_us(pid):
    """Of a process, all its threads."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1000


def run(pin, path, pid, request, connections, pipeline, keys, seconds, rate=None):
    """Figures as those of tally_generator. `rate`: what is expected, a second; asked for in a short run where it is not known."""
    if rate is None:
        rate = run(pin, path, pid, request, connections, pipeline, keys, 0, 0)["per_second"]
    count = max(int(rate * seconds), 1000 * pipeline)
    words = ["redis-benchmark", "-s", path, "-c", connections, "-P", pipeline, "-n", count, "-r", keys, "--csv", *request]
    before, own, start = cpu_us(pid), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*pin, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
    took, spent, end = time.monotonic() - start, cpu_us(pid) - before, resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [row for row in csv.reader(re.split(r"[\r\n]+", done.stdout)) if len(row) == 8 and row[0] != "test"]
    if done.returncode != 0 or len(rows) != 1:
        raise DemoError(f"redis-benchmark: {done.stdout[-500:]} {done.stderr[-500:]}")
    _, per_second, _, _, p50, _, p99, longest = rows[0]
    busy = end.ru_utime + end.ru_stime - own.ru_utime - own.ru_stime
    return {"decisions": count, "seconds": count / float(per_second), "per_second": float(per_second), "server_cpu_us": spent,
            "generator_cpu_us": 1e6 * busy * count / float(per_second) / took, "batch_p50_us": 1000 * float(p50), "batch_p99_us": 1000 * float(p99),
            "batch_max_us": 1000 * float(longest)}
