"""The tables of our own figures."""
from statistics import median

from origin import commit, link, processor, started
from tables import listed, number, table
from targets import NONE

# Of the orders/s of the bare loop.
WANTED_OF_THE_LOOP = 0.7
UNITS = {"_mb": "MiB", "_ms": "ms", "_per_s": "1/s", "_in_s": "s"}


def named(key):
    """A key of a line as words, with its unit last."""
    for end, unit in UNITS.items():
        if key.endswith(end):
            return f"{key.removesuffix(end).replace('_', ' ').replace('rss', 'RSS')}, {unit}"
    return key.replace("_", " ")


def parts_of_the_loop(runs):
    """What part of the bare loop's orders/s an instance does, in each round."""
    rates = lambda who: [line["orders_per_s"] for line in runs.of("limit") if line["who"] == who]
    return [ours / loop for ours, loop in zip(rates("the instance"), rates("a bare loop"))]


def part_of_the_loop(runs):
    parts = parts_of_the_loop(runs)
    return median(parts) if parts else None


def limit(runs):
    keys = ["orders_per_s", "app_cpu_s_per_1000", "broker_cpu_s_per_1000", "consumed_per_order", "produced_per_order"]
    rows = [[line["who"], *(number(line[key]) for key in keys)] for line in runs.merged("limit", "who")]
    if not rows:
        return ""
    head = ["", "orders, 1/s", "own CPU s for 1000", "broker's", "records consumed, an order", "produced"]
    text = table(head, rows, range(1, 6))
    parts = parts_of_the_loop(runs)
    if parts:
        part = median(parts)
        of = f" ({100 * min(parts):.0f} … {100 * max(parts):.0f} % in {len(parts)} rounds)" if len(parts) > 1 else ""
        verdict = "as wanted" if part >= WANTED_OF_THE_LOOP else "missed"
        text += f"\nThe instance does {100 * part:.0f} % of the loop's orders/s{of}; wanted are {100 * WANTED_OF_THE_LOOP:.0f} %: {verdict}.\n"
    return text


def timers(runs):
    rows = []
    for line in runs.merged("wheel", "timers"):
        rows += [[f"the wheel alone, {number(line['timers'])} timers: {named(key)}", number(line[key])]
                 for key in ("inserts_per_s", "cancels_per_s", "bytes_a_timer")]
    for line in runs.merged("timers", "timers_pending"):
        for key, value in line.items():
            if key not in ("phase", "pair"):
                rows.append([named(key), number(value) if isinstance(value, (int, float)) else value])
    return table(["", "measured"], rows, (1,)) if rows else ""


def restore(runs):
    rows = [[number(line["records"]), number(line["seconds"]), number(line["records_per_s"]), number(line["app_cpu_s"])]
            for line in runs.merged("restore", "records")]
    return table(["records", "seconds", "records, 1/s", "CPU s"], rows, range(4)) if rows else ""


def growth(runs):
    head = ["live orders", "partitions", "instances", "standbys", "orders, 1/s", "p50, ms", "p99, ms", "RSS, MiB", "CPU s for 1000"]
    rows = [[number(line["live"]), line["partitions"], line["instances"], line["standbys"], number(line["orders_per_s"]),
             number(line["latency_ms"]["p50"]), number(line["latency_ms"]["p99"]), number(line["rss_mb"]),
             number(line["app_cpu_s_per_1000"])] for line in runs.merged("growth", "axis", "live", "partitions", "instances", "standbys")]
    return table(head, rows, range(9)) if rows else ""


def grown(key, **wanted):
    """A figure of the line of growth that is `wanted`."""
    def pick(runs):
        for line in runs.merged("growth", "axis", "live", "partitions", "instances", "standbys"):
            if all(line[name] == value for name, value in wanted.items()):
                return line["latency_ms"][key] if key in line["latency_ms"] else line[key]
        return None
    return pick


def only(phase, key, who=None):
    return lambda runs: next((line[key] for line in runs.merged(phase, "who") if who in (None, line.get("who"))), None)


FIGURES = [
    ("the instance: orders, 1/s", only("limit", "orders_per_s", "the instance")),
    ("the instance: CPU s for 1000 orders", only("limit", "app_cpu_s_per_1000", "the instance")),
    ("the bare loop: orders, 1/s", only("limit", "orders_per_s", "a bare loop")),
    ("the instance's part of the loop's orders/s", part_of_the_loop),
    ("restore: records, 1/s", only("restore", "records_per_s")),
    ("the wheel alone: inserts, 1/s", only("wheel", "inserts_per_s")),
    ("timers set, 1/s", only("timers", "timers_set_per_s")),
    ("timers pending: RSS beyond cache, MiB", only("timers", "rss_beyond_cache_mb")),
    ("timers due at once: fired, 1/s", only("timers", "timers_fired_per_s")),
    ("timers due at once: p99 of records, ms", only("timers", "record_p99_while_draining_ms")),
    ("1 partition: p50, ms", grown("p50", axis="partitions", partitions=1)),
    ("16 partitions: p50, ms", grown("p50", axis="partitions", partitions=16)),
    ("1 instance: orders, 1/s", grown("orders_per_s", axis="instances", instances=1)),
    ("2 instances, no standbys: orders, 1/s", grown("orders_per_s", axis="instances", instances=2, standbys=0)),
    ("2 instances, 1 standby: orders, 1/s", grown("orders_per_s", axis="instances", instances=2, standbys=1)),
]


def machines(runs, columns, seen_from):
    """Some of the figures on each machine."""
    columns = [column for column in columns if column.sections]
    if not columns:
        return ""
    columns = [column for column in [runs, *columns] if column.sections]
    rows = [["file", *(listed(link(path, seen_from) for path in c.paths) for c in columns)],
            ["started, UTC", *(listed(started(h)[:10] for h in c.headers) for c in columns)],
            ["commit", *(listed(map(commit, c.headers)) for c in columns)]]
    for name, pick in FIGURES:
        values = [pick(column) for column in columns]
        if any(value is not None for value in values):
            rows.append([name, *(number(value) if value is not None else NONE for value in values)])
    return table(["", *(listed(map(processor, c.headers)) for c in columns)], rows, range(1, len(columns) + 1))
