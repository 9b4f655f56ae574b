"""What is measured against the peer, and what we want of it.

A target is a ratio of ours to the peer's (the median over the pairs), or a limit of our own median. What
has none is shown all the same, so that nothing in which the peer is better is left out.
"""
from dataclasses import dataclass, replace
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
    # Instead, from a million orders on.
    ratio_of_millions: Optional[Fraction] = None
    absolute: Optional[float] = None

    def __str__(self):
        return self.name + (f", {self.unit}" if self.unit else "")

    def values(self, runs, impl):
        """The value of each run, by what makes two runs a pair."""
        found = {}
        for (_, pair), lines in runs.by_run(impl).items():
            for line in lines:
                if line["phase"] != self.phase:
                    continue
                try:
                    value = self.pick(line)
                except (KeyError, TypeError, ZeroDivisionError):
                    continue  # a run that broke has no figure; it is told of elsewhere
                if value is not None:
                    found[pair] = value
        return found

    def target(self):
        sign = "≥" if self.more_is_better else "≤"
        if self.absolute is not None:
            return f"{sign} {self.absolute:g} {self.unit}".strip()
        if self.ratio is None:
            return NONE
        # Rates are told as multiples, costs as parts.
        return f"{sign} {float(self.ratio):g}×" if self.ratio >= 1 else f"{sign} {self.ratio}×"


class Judged:
    """A figure with what was measured; what there is nothing to compare with is None."""

    def __init__(self, figure, runs):
        if figure.ratio_of_millions and int(runs.sizes.get("N", 0)) >= 1_000_000:
            figure = replace(figure, ratio=figure.ratio_of_millions)
        self.figure = figure
        ours, peers = figure.values(runs, "turnstile"), figure.values(runs, "java")
        pairs = [pair for pair in ours if pair in peers]
        if pairs:  # a run whose other half broke does not count
            ours, peers = ({pair: of_one[pair] for pair in pairs} for of_one in (ours, peers))
        self.ours, self.peers = list(ours.values()), list(peers.values())
        self.ratios = [ours[pair] / peers[pair] for pair in pairs if peers[pair]]

    @property
    def ratio(self):
        return median(self.ratios) if self.ratios else None

    @property
    def met(self):
        f = self.figure
        measured, limit = (self.ratio, f.ratio) if f.absolute is None else (median(self.ours) if self.ours else None, f.absolute)
        if measured is None or limit is None:
            return None
        return measured >= limit if f.more_is_better else measured <= limit

    @property
    def better(self):
        """Whether ours is better than the peer's, at the median; None where both are the same, or one is not known."""
        if self.ratio in (None, 1):
            return None
        return (self.ratio > 1) == self.figure.more_is_better

    @property
    def in_all_pairs(self):
        """Whether the same side was better in each pair."""
        return bool(self.ratios) and (min(self.ratios) > 1 or max(self.ratios) < 1)


def per_1000(process, count):
    return lambda line: line[process]["cpu_s"] / line[count] * 1000


def cpu(process):
    return lambda line: line[process]["cpu_s"]


def peak(process):
    return lambda line: line[process]["rss_peak_mb"]


def within(key, which):
    return lambda line: line[key][which]


def part(n):
    return Fraction(1, n)


FIGURES = [
    Figure("P1 orders", "1/s", "p1-throughput", lambda l: l["orders_per_s"], True, Fraction(2)),
    Figure("P1 application, CPU for 1000 orders", "s", "p1-throughput", per_1000("app", "orders"), ratio=part(4)),
    Figure("P1 broker, CPU for 1000 orders", "s", "p1-throughput", per_1000("broker", "orders"), ratio=Fraction(1)),
    Figure("P1 application, peak RSS", "MiB", "p1-throughput", peak("app"), ratio=part(4)),
    Figure("P1 broker, peak RSS", "MiB", "p1-throughput", peak("broker")),
    Figure("P1 start to first output", "s", "p1-throughput", lambda l: l["first_output_s"], ratio=part(5)),
    Figure("P2 latency, p50", "ms", "p2-latency", within("latency_ms", "p50"), ratio=part(3)),
    Figure("P2 latency, p95", "ms", "p2-latency", within("latency_ms", "p95")),
    Figure("P2 latency, p99", "ms", "p2-latency", within("latency_ms", "p99"), ratio=part(3)),
    Figure("P2 latency, greatest", "ms", "p2-latency", within("latency_ms", "max")),
    Figure("P2 application, CPU", "s", "p2-latency", cpu("app"), ratio=part(3)),
    Figure("P2 broker, CPU", "s", "p2-latency", cpu("broker"), ratio=Fraction(3, 2)),
    Figure("P2 payments", "1/s", "p2-payments", lambda l: l["payments_per_s"], True, Fraction(2)),
    Figure("P2 application, CPU for 1000 payments", "s", "p2-payments", per_1000("app", "n")),
    Figure("P2 broker, CPU for 1000 payments", "s", "p2-payments", per_1000("broker", "n")),
    Figure("P3 ready with an empty disk", "s", "p3-restore-empty", lambda l: l["ready_s"], ratio=part(5), ratio_of_millions=part(3)),
    Figure("P3 application, CPU with an empty disk", "s", "p3-restore-empty", cpu("app")),
    Figure("P3 peak RSS with an empty disk", "MiB", "p3-restore-empty", peak("app")),
    Figure("P3 ready after a stop, state kept", "s", "p3-clean-restart", lambda l: l["ready_s"]),
    Figure("P3 application, CPU after a stop", "s", "p3-clean-restart", cpu("app")),
    Figure("P3 ready after kill -9, state kept", "s", "p3-kill9-restart", lambda l: l["ready_s"], absolute=1),
    Figure("P3 application, CPU after kill -9", "s", "p3-kill9-restart", cpu("app")),
    Figure("P4 lateness of timers, p50", "ms", "p4-timers", within("jitter_ms", "p50"), ratio=part(4)),
    Figure("P4 lateness of timers, p99", "ms", "p4-timers", within("jitter_ms", "p99"), ratio=part(4)),
    Figure("P4 timers that fired early", "", "p4-timers", lambda l: l["early"], absolute=0),
    Figure("P4 order cancelled after its deadline, p50", "ms", "p4-timers", within("cancelled_after_deadline_ms", "p50")),
    Figure("P4 order cancelled after its deadline, p99", "ms", "p4-timers", within("cancelled_after_deadline_ms", "p99")),
    Figure("P4 application, CPU", "s", "p4-timers", cpu("app")),
    Figure("P4 broker, CPU", "s", "p4-timers", cpu("broker")),
    Figure("P4 broker, peak RSS", "MiB", "p4-timers", peak("broker")),
    Figure("P5 reads", "1/s", "p5-reads", lambda l: l["reads"]["per_s"], True, Fraction(3, 2)),
    Figure("P5 reads, p50", "ms", "p5-reads", lambda l: l["reads"]["p50_ms"]),
    Figure("P5 reads, p99", "ms", "p5-reads", lambda l: l["reads"]["p99_ms"], ratio=part(2)),
    # The benchmark does not tell the CPU of P5 apart: the line has what the processes took since their start, warm-up included.
    Figure("P5 application, CPU since its start", "s", "p5-reads", cpu("app")),
    Figure("P1 to P5 broker, CPU in all", "s", "p5-reads", cpu("broker")),
]


def judge(runs):
    return [Judged(figure, runs) for figure in FIGURES]
