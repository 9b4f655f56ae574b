"""Why a figure misses its target, or why the peer is better in it: a sentence, and the decision that has the rest.

Sentences without numbers, for they are printed beside those of any measurement.
"""
import glob
import os

from header import ROOT

GROUPS = ("An instance commits more often than the peer and for six groups, where the peer has one, and librdkafka makes a request for each "
          "partition, where Java's producer makes one for all.", "0014")
READS = "wrk, which asks, takes about half of the two cores, and the system much of the rest."
ROWS = "What an order or a payment costs goes with the rows that it changes: each is looked up, written and logged."
HALF_A_SECOND = "The load generator's producer, an idempotent one, rests for half a second at its start now and then, on either side."
LATENCY = "A record waits for the commit under way, for the pause after it and for its own commit, in which the broker is what takes time."
TIMERS = "What timers send has a transaction of its own; a shorter pause between two of them does not help, as the coordinator sends the next one away."
FIRST_TIMERS = ("The worst are those that are due while the broker compiles what the first timers have it do, or collects its garbage; and where the load "
                "generator has rested at its start, more than a thousand are due at once.", "0026")

REASONS = {
    "P1 orders": ("On two cores orders/s are what CPU the application, the broker and the load generator leave each other.", "0022"),
    "P1 application, CPU for 1000 orders": (ROWS, "0022"),
    "P1 broker, CPU for 1000 orders": ("What is handed to the client at once is a request for each partition.", "0014"),
    "P1 application, peak RSS": ("Blocks, rows that are not on disk yet and fetched records have a bound each; lower ones cost CPU.", "0019"),
    "P1 start to first output": ("A start is a row of requests to the broker, of which as many as possible are under way at once.", "0012"),
    "P2 latency, p50": (LATENCY, "0014"),
    "P2 latency, p95": (LATENCY, "0014"),
    "P2 latency, p99": (HALF_A_SECOND, "0012"),
    "P2 latency, greatest": (HALF_A_SECOND, "0012"),
    "P2 application, CPU": ("A light load is committed a few records at a time, and each commit is a request for each partition and group.", "0014"),
    "P2 broker, CPU": GROUPS,
    "P2 payments": (ROWS, "0022"),
    "P2 application, CPU for 1000 payments": (ROWS, "0022"),
    "P2 broker, CPU for 1000 payments": GROUPS,
    "P3 ready with an empty disk": ("It is mostly CPU: records are read, sorted and written to files.", "0025"),
    "P3 peak RSS with an empty disk": ("Records wait in memory for the thread that sorts them.", "0021"),
    "P4 lateness of timers, p50": (TIMERS, "0026"),
    "P4 lateness of timers, p99": FIRST_TIMERS,
    "P4 broker, CPU": ("Timers that fire all the time have a commit every few milliseconds; the peer's wait for its interval.", "0026"),
    "P5 reads": (READS, "0011"),
    "P5 reads, p50": (READS, "0011"),
    "P5 reads, p99": (READS, "0011"),
    "P1 to P5 broker, CPU in all": GROUPS,
}


def reason(figure, seen_from):
    """The sentence, with a link as seen from a page in the folder `seen_from`."""
    if figure.name not in REASONS:
        return "Not looked into."
    sentence, number = REASONS[figure.name]
    [path] = glob.glob(os.path.join(ROOT, "docs/adr", f"{number}-*.md"))
    return f"{sentence} [ADR {number}]({os.path.relpath(path, seen_from or '.')})"
