"""Where figures come from: file, machine, commit, versions, settings, and who else used the CPU.

Headers that differ are told side by side; none stands for another.
"""
import os
import re

from tables import listed, number, table
from targets import NONE


def link(path, seen_from):
    """A file by its name, or by that of its folder where all have the same."""
    name = os.path.basename(path)
    if name == "raw.jsonl":
        name = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return f"[{name}]({os.path.relpath(path, seen_from or '.')})"


def processor(header):
    """The name alone: Intel Xeon."""
    name = re.sub(r"\(R\)|\(TM\)|\bProcessor\b|, \d+ cores", "", header.get("machine", {}).get("processor", "unknown machine"))
    return " ".join(name.split())


def commit(header):
    """In short, and whether the tree was as committed."""
    return f"`{header.get('commit', 'unknown')[:10]}`" + {True: " with changes", False: "", None: ", changes unknown"}[header.get("dirty")]


def started(header):
    return header.get("started", NONE)[:16].replace("T", " ")


def size(value):
    return number(int(value)) if value.isdigit() else value


def sizes(header):
    return ", ".join(f"`{key}` {size(value)}" for key, value in header.get("sizes", {}).items())


def measured_on(runs, seen_from):
    """What holds for all figures of `runs`."""
    if not runs.headers:
        return ""
    rows = {"files": [link(path, seen_from) for path in runs.paths]}
    for header in runs.headers:
        told = {"commit": commit(header), "started, UTC": started(header), **header.get("machine", {}), **header.get("versions", {})}
        if header.get("sizes"):
            told["sizes"] = sizes(header)
        for key, value in told.items():
            rows.setdefault(key, []).append(value)
    return table(["", ""], [[key, listed(values)] for key, values in rows.items()])


def purpose(runs):
    """What was measured, in a few words."""
    told = []
    peer, alone = runs.against_the_peer(), runs.alone()
    if peer.sections:
        phases = sorted({line["phase"][:2].upper() for line in peer.lines if re.match(r"p\d-", line["phase"])})
        impls = {impl for impl, _ in peer.by_run()}
        count = len({pair for _, pair in peer.by_run()})
        orders = peer.sizes.get("N", "")
        told.append(f"{count} pair{'s' * (count > 1)}" if len(impls) > 1 else f"{count} run{'s' * (count > 1)} of {', '.join(impls)}")
        told[-1] += f" of {', '.join(phases)}" + (f" with `N` {size(orders)}" if orders else "")
    if alone.sections:
        told.append("alone: " + ", ".join(dict.fromkeys(line["phase"] for line in alone.lines)))
    return "; ".join(told) or NONE


def files(each, seen_from):
    """A row for each file of `each`, a list of Runs of one file."""
    rows = []
    for runs in each:
        headers = runs.headers
        machine = lambda key, headers=headers: listed(header.get("machine", {}).get(key, NONE) for header in headers)
        rows.append([link(runs.paths[0], seen_from), purpose(runs), machine("processor"), machine("kernel"), listed(map(started, headers)),
                     listed(map(commit, headers))])
    return table(["file", "what", "machine", "kernel", "started, UTC", "commit"], rows) if rows else ""


def settings(each, seen_from):
    """The settings of all files; where they differ, which file has which."""
    of_whom, unknown = {}, {}
    for runs in each:
        file = link(runs.paths[0], seen_from)
        for header in runs.headers:
            for name, values in header.get("settings", {}).items():
                keys = of_whom.setdefault(name, {})
                for key, value in values.items():
                    keys.setdefault(key, {}).setdefault(f"`{value}`" if value else "none", []).append(file)
                if not values:
                    unknown.setdefault(name, []).append(file)
    text = []
    for name, keys in of_whom.items():
        told = lambda by_value: next(iter(by_value)) if len(by_value) == 1 else "; ".join(
            f"{value} in {', '.join(dict.fromkeys(files))}" for value, files in by_value.items())
        text.append(f"Settings of {name}:\n\n" + table(["setting", "value"], [[f"`{key}`", told(by_value)] for key, by_value in keys.items()]))
        if name in unknown:
            text.append(f"Not recorded for a part of {', '.join(dict.fromkeys(unknown[name]))}.\n")
    return "\n".join(text)


def disturbance(each, seen_from):
    """CPU that neither side nor the broker used, in the phases in which that is known."""
    text = []
    for runs in each:
        rows = []
        for (impl, (_, pair, run)), lines in runs.by_run().items():
            for line in lines:
                if "machine" not in line or not line["phase"].startswith("p") or "app" not in line:
                    continue
                used = line["app"]["cpu_s"] + line.get("broker", {}).get("cpu_s", 0)
                machine = line["machine"]
                rows.append([impl, pair or run, line["phase"], number(machine["busy_cpu_s"]),
                             number(used), number(machine["busy_cpu_s"] - used), number(machine["stolen_cpu_s"])])
        if rows:
            head = ["", "pair", "phase", "busy, CPU s", "application and broker", "others", "stolen"]
            text.append(f"{link(runs.paths[0], seen_from)}:\n\n" + table(head, rows, (1, 3, 4, 5, 6)))
    if not text:
        return ""
    return ("The load generator and the measuring reader share the cores; they are the *others*. "
            "Runs with much more of them, or with stolen time, are not comparable.\n\n" + "\n".join(text))
