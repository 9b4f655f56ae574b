"""The report as a whole, and its place in a page."""
import os

import plots
import tables

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def draw(runs, folder, seen_from):
    """Draws the plots into `folder`; the Markdown that shows each from a page in the folder `seen_from`, by name."""
    os.makedirs(folder, exist_ok=True)
    drawn = {}
    for name, alt, svg in plots.all_of(runs):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(svg)
        drawn[name] = f"![{alt}]({os.path.relpath(path, seen_from or '.')})\n"
    return drawn


def report(runs, folder, seen_from):
    """The report in Markdown; the plots go to `folder`, if there is one, and are linked as seen from the folder `seen_from`."""
    drawn = draw(runs, folder, seen_from) if folder else {}
    parts = []

    def section(title, text, *names):
        pictures = [drawn[name] for name in names if name in drawn]
        if text or pictures:
            parts.append("\n".join([f"### {title}\n", *pictures, text]))

    violations = runs.violations()
    if violations:
        parts.append("### VIOLATIONS\n\n" + "".join(f"- {v}\n" for v in violations))
    section("Against the peer", tables.against_the_peer(runs), "ratios.svg")
    section("The ceiling: a bare loop", tables.limit(runs), "limit.svg")
    section("Timers", tables.timers(runs))
    section("Restore", tables.restore(runs))
    section("Growth", tables.growth(runs), "growth-live.svg", "growth-partitions.svg", "growth-instances.svg")
    section("Measured on", tables.setup(runs))
    section("Who else used the CPU", tables.disturbance(runs))
    return "\n".join(parts)


def fill(path, text):
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    if whole.count(BEGIN) != 1 or whole.count(END) != 1 or whole.index(BEGIN) > whole.index(END):
        raise SystemExit(f"figures: {path} needs the lines {BEGIN} and {END}, once each, in this order")
    before, rest = whole.split(BEGIN)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")
