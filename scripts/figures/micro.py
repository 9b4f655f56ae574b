"""Compares what divan printed for two revisions.

Each folder holds one file a round. Of each benchmark count the median of the rounds' medians,
the fastest sample of all, which a busy machine changes least, and the allocations, which are
exact.
"""
import json
import os
import re
import sys
from dataclasses import dataclass
from statistics import median
from typing import Optional

NANOSECONDS = {"ps": 1e-3, "ns": 1, "µs": 1e3, "us": 1e3, "ms": 1e6, "s": 1e9}
TIME = re.compile(r"([\d.]+) (ps|ns|µs|us|ms|s)\b")
# Three columns for each level of the tree, the last of them with the branch.
BRANCH = re.compile(r"^((?:[│ ]  )*)[├╰]─ (\S+)(.*)$")


@dataclass
class Measured:
    fastest: float
    median: float
    allocations: Optional[float] = None


def parse(text):
    """Benchmark → what was measured: times in ns, allocations a call."""
    found, path, current, counts = {}, [], None, False
    for line in text.splitlines():
        branch = BRANCH.match(line)
        if branch:
            depth = len(branch.group(1)) // 3 + 1
            path = path[:depth] + [branch.group(2)]
            # Fastest, slowest, median and mean; a group has none.
            times = [float(value) * NANOSECONDS[unit] for value, unit in TIME.findall(branch.group(3))]
            current = None
            if len(times) >= 4:
                current = found["::".join(path)] = Measured(times[0], times[2])
        elif re.match(r"^\w+ .*fastest", line):
            path = [line.split()[0]]
        elif current:
            cells = line.lstrip("│ ")
            if counts:
                current.allocations = float(cells.split()[0])
            counts = cells.startswith("alloc:")
    return found


def rounds(folder):
    """Benchmark → what was measured in all rounds together."""
    each = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for benchmark, measured in parse(file.read()).items():
                each.setdefault(benchmark, []).append(measured)
    return {name: Measured(min(m.fastest for m in all_of), median(m.median for m in all_of), all_of[-1].allocations)
            for name, all_of in each.items()}


def human(ns):
    for unit in ("s", "ms", "µs"):
        if ns >= NANOSECONDS[unit]:
            return f"{ns / NANOSECONDS[unit]:.3g} {unit}"
    return f"{ns:.3g} ns"


def executables():
    for message in sys.stdin:
        message = json.loads(message)
        if message.get("executable") and "bench" in message["target"]["kind"]:
            print(message["executable"])
    return 0


def compare(base_folder, work_folder):
    base, work = rounds(base_folder), rounds(work_folder)
    if not work:
        raise SystemExit("figures: the benchmarks printed nothing that can be read")
    rows = [["", "base, median", "work, median", "work ÷ base", "of the fastest", "allocations"]]
    for name, now in work.items():
        was = base.get(name)
        counts = [m.allocations for m in (was, now) if m and m.allocations is not None]
        told = " → ".join(f"{count:g}" for count in dict.fromkeys(counts)) or "0"
        if was:
            rows.append([name, human(was.median), human(now.median), f"{now.median / was.median:.2f}",
                         f"{now.fastest / was.fastest:.2f}", told])
        else:
            rows.append([name, "–", human(now.median), "–", "–", told])
    rows += [[name, human(base[name].median), "–", "–", "–", "–"] for name in base if name not in work]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print("  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]))
    return 0
