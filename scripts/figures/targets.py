"""What is measured against the peer, and what we want of it.

A target is a ratio of ours to the peer's (medians of all runs), or a limit of our own value. What
has none is shown all the same, so that nothing in which the peer is better is left out.
"""
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Callable, Optional

# Where there is nothing to show.
NONE = "–"


@dataclass
class Figure:
    name: str
    unit: str
    phase: str
    pick: Callable
    more_is_better: bool = False
    ratio: Optional[Fraction] = None
    absolute: Optional[float] = None

    def values(self, runs, impl):
        found = []
        for line in runs.of(self.phase, impl):
            try:
                value = self.pick(line)
            except (KeyError, TypeError, ZeroDivisionError):
                continue  # a run that broke has no figure; it is told of elsewhere
            if value is not None:
                found.append(value)
        return found

    def target(self):
        sign = "≥" if self.more_is_better else "≤"
        if self.absolute is not None:
            return f"{sign} {self.absolute:g} {self.unit}".strip()
        if self.ratio is None:
            return NONE
        # Rates are told as multiples, costs as parts.
        return f"{sign} {float(self.ratio):g}×" if self.ratio >= 1 else f"{sign} {self.ratio}×"


@dataclass
class Judged:
    """A figure with what was measured; ratio and met are None where there is nothing to compare with."""

    figure: Figure
    ours: list
    peers: list

    @property
    def ratio(self):
        if not self.ours or not self.peers or not median(self.peers):
            return None
        return median(self.ours) / median(self.peers)

    @property
    def met(self):
        f = self.figure
        measured, limit = (self.ratio, f.ratio) if f.absolute is None else (median(self.ours) if self.ours else None, f.absolute)
        if measured is None or limit is None:
            return None
        return measured >= limit if f.more_is_better else measured <= limit


def per_1000(process, count):
    return lambda line: line[process]["cpu_s"] / line[count] * 1000


def part(n):
    return Fraction(1, n)


FIGURES = [
    Figure("P1 orders", "1/s", "p1-throughput", lambda l: l["orders_per_s"], True, Fraction(2)),
    Figure("P1 application, CPU for 1000 orders", "s", "p1-throughput", per_1000("app", "orders"), ratio=part(4)),
    Figure("P1 broker, CPU for 1000 orders", "s", "p1-throughput", per_1000("broker", "orders"), ratio=Fraction(1)),
    Figure("P1 application, peak RSS", "MiB", "p1-throughput", lambda l: l["app"]["rss_peak_mb"], ratio=part(4)),
    Figure("P1 start to first output", "s", "p1-throughput", lambda l: l["first_output_s"], ratio=part(5)),
    Figure("P2 latency, p50", "ms", "p2-latency", lambda l: l["latency_ms"]["p50"], ratio=part(3)),
    Figure("P2 latency, p99", "ms", "p2-latency", lambda l: l["latency_ms"]["p99"], ratio=part(3)),
    Figure("P2 application, CPU", "s", "p2-latency", lambda l: l["app"]["cpu_s"], ratio=part(3)),
    Figure("P2 broker, CPU", "s", "p2-latency", lambda l: l["broker"]["cpu_s"], ratio=Fraction(3, 2)),
    Figure("P2 payments", "1/s", "p2-payments", lambda l: l["payments_per_s"], True, Fraction(2)),
    Figure("P3 ready with an empty disk", "s", "p3-restore-empty", lambda l: l["ready_s"], ratio=part(5)),
    Figure("P3 peak RSS with an empty disk", "MiB", "p3-restore-empty", lambda l: l["app"]["rss_peak_mb"]),
    Figure("P3 ready after kill -9, state kept", "s", "p3-kill9-restart", lambda l: l["ready_s"], absolute=1),
    Figure("P4 lateness of timers, p50", "ms", "p4-timers", lambda l: l["jitter_ms"]["p50"], ratio=part(4)),
    Figure("P4 lateness of timers, p99", "ms", "p4-timers", lambda l: l["jitter_ms"]["p99"], ratio=part(4)),
    Figure("P4 timers that fired early", "", "p4-timers", lambda l: l["early"], absolute=0),
    Figure("P5 reads", "1/s", "p5-reads", lambda l: l["reads"]["per_s"], True, Fraction(3, 2)),
    Figure("P5 reads, p50", "ms", "p5-reads", lambda l: l["reads"]["p50_ms"]),
    Figure("P5 reads, p99", "ms", "p5-reads", lambda l: l["reads"]["p99_ms"], ratio=part(2)),
]


def judge(runs):
    return [Judged(f, f.values(runs, "turnstile"), f.values(runs, "java")) for f in FIGURES]
