"""Tables in Markdown, from the lines of measurements."""
from statistics import median

from targets import NONE, judge


def number(value):
    if value is None:
        return NONE
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}"


def spread(values):
    """The median, and from where to where the runs went."""
    if not values:
        return NONE
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))} … {number(max(values))})"


def table(head, rows, right=()):
    rule = ["---:" if n in right else "---" for n in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, rule, *rows]) + "\n"


def against_the_peer(runs):
    judged = [j for j in judge(runs) if j.ours or j.peers]
    if not judged:
        return ""
    rows = []
    for j in judged:
        met = {True: "yes", False: "**no**", None: NONE}[j.met]
        name = j.figure.name + (f", {j.figure.unit}" if j.figure.unit else "")
        ratio = NONE if j.ratio is None else f"{j.ratio:.2f}×"
        rows.append([name, spread(j.ours), spread(j.peers), ratio, j.figure.target(), met])
    count = {impl: max([len(j.ours if impl == "turnstile" else j.peers) for j in judged]) for impl in ("turnstile", "java")}
    text = table(["figure", "Turnstile", "Kafka Streams", "ratio", "target", "met"], rows, (1, 2, 3, 4))
    return (f"Medians of {count['turnstile']} runs of Turnstile and {count['java']} of the peer "
            "(in brackets the least and the greatest of them).\n\n" + text)


def disturbance(runs):
    """CPU that neither side nor the broker used, in the phases in which that is known."""
    rows = []
    for line in runs.lines:
        if "machine" not in line or not line["phase"].startswith("p") or "app" not in line:
            continue
        used = line["app"]["cpu_s"] + line.get("broker", {}).get("cpu_s", 0)
        machine = line["machine"]
        rows.append([line.get("impl"), line.get("pair", line.get("run")), line["phase"], number(machine["busy_cpu_s"]),
                     number(used), number(machine["busy_cpu_s"] - used), number(machine["stolen_cpu_s"])])
    if not rows:
        return ""
    head = ["", "pair", "phase", "busy, CPU s", "application and broker", "others", "stolen"]
    return ("The load generator and the measuring reader share the cores; they are the *others*. "
            "Runs with much more of them, or with stolen time, are not comparable.\n\n" + table(head, rows, (1, 3, 4, 5, 6)))


def limit(runs):
    rows = [[line["who"], number(line["orders_per_s"]), number(line["app_cpu_s_per_1000"]),
             number(line["broker_cpu_s_per_1000"]), number(line["consumed_per_order"]), number(line["produced_per_order"])]
            for line in runs.merged("limit", "who")]
    head = ["", "orders, 1/s", "own CPU s for 1000", "broker's", "records consumed, an order", "produced"]
    return table(head, rows, range(1, 6)) if rows else ""


def timers(runs):
    rows = []
    for line in runs.merged("wheel", "timers"):
        rows += [[f"the wheel alone, {number(line['timers'])} timers: {key.replace('_', ' ')}", number(line[key])]
                 for key in ("inserts_per_s", "cancels_per_s", "bytes_a_timer")]
    for line in runs.merged("timers", "timers_pending"):
        for key, value in line.items():
            if key not in ("phase", "pair"):
                rows.append([key.replace("_", " "), number(value) if isinstance(value, (int, float)) else value])
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
    return table(head, rows, range(8)) if rows else ""


def setup(runs):
    """Machine, versions, commit: what the figures hold for. Headers that differ are told side by side."""
    if not runs.headers:
        return ""
    rows, settings = {}, {}
    for header in runs.headers:
        told = {"commit": header.get("commit", NONE) + (", with changes" if header.get("dirty") else ""),
                "started": header.get("started", NONE)}
        for section in ("machine", "versions", "sizes"):
            told.update(header.get(section, {}))
        for key, value in told.items():
            rows.setdefault(key, {})[value] = None
        settings.update(header.get("settings", {}))
    text = table(["", ""], [[key, "; ".join(values)] for key, values in rows.items()])
    for name, of_one in settings.items():
        text += f"\n<details><summary>Settings of {name}</summary>\n\n"
        text += table(["setting", "value"], [[f"`{k}`", f"`{v}`" if v else ""] for k, v in of_one.items()])
        text += "\n</details>\n"
    return text
