"""Why a figure misses its target, or why the peer is better in it: a sentence, and the decision that has the rest.

Sentences without numbers, for they are printed beside those of any measurement.
"""
import glob
import os

from header import ROOT

GROUPS = ("An instance commits more often than the peer, and for six groups where the peer has one; and librdkafka sends one produce request "
          "per partition, where Java's producer sends one for all.", "0014")
READS = "The client, wrk, takes about half of the two cores, and the kernel much of the rest."
ROWS = "The cost of an order or payment grows with the rows it changes: each is looked up, written, and logged to the changelog."
LATENCY = "A record waits for the commit under way, for the pause after it, and for its own commit, most of which is spent in the broker."
TAIL = LATENCY + " Besides, the load generator's idempotent producer now and then pauses for half a second at its start, on either side."
TIMERS = "What timers send has its own transaction; a shorter pause between two of them does not help, because the coordinator rejects the next one."
FIRST_TIMERS = ("The worst are those that come due while the broker still compiles the code for the first timers, or collects garbage; and if the load "
                "generator has paused at its start, more than a thousand come due at once.", "0026")

REASONS = {
    "P1 orders": ("On two cores, orders/s depend on how much CPU the application, the broker and the load generator leave each other.", "0022"),
    "P1 application, CPU for 1000 orders": (ROWS, "0022"),
    "P1 broker, CPU for 1000 orders": ("Each time records are handed to the client, it sends one produce request per partition.", "0014"),
    "P1 application, peak RSS": ("Cached blocks, rows that are not on disk yet and fetched records each have a limit; lower limits cost CPU.", "0019"),
    "P1 start to first output": ("A start is a sequence of requests to the broker, as many as possible in parallel.", "0012"),
    "P2 latency, p50": (LATENCY, "0014"),
    "P2 latency, p95": (LATENCY, "0014"),
    "P2 latency, p99": (TAIL, "0014"),
    "P2 latency, greatest": (TAIL, "0014"),
    "P2 application, CPU": ("Under a light load, each commit has only a few records, and takes one request per partition and group.", "0014"),
    "P2 broker, CPU": GROUPS,
    "P2 payments": (ROWS, "0022"),
    "P2 application, CPU for 1000 payments": (ROWS, "0022"),
    "P2 broker, CPU for 1000 payments": GROUPS,
    "P3 ready with an empty disk": ("Restoring is mostly CPU: records are read, sorted and written to files.", "0025"),
    "P3 peak RSS with an empty disk": ("Records are buffered in memory for the thread that sorts them.", "0021"),
    "P4 lateness of timers, p50": (TIMERS, "0026"),
    "P4 lateness of timers, p99": FIRST_TIMERS,
    "P4 broker, CPU": ("Timers that fire continuously cause a commit every few milliseconds; the peer's wait for its commit interval.", "0026"),
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
