"""Plots as SVG, by hand: bars of ratios, bars of a comparison, lines over a growing quantity.

Each stands on a card of its own and says its colours for light and for dark, so that it can
be read on any page. Each axis has its unit, and nothing is told by colour alone.
"""
import math
from xml.sax.saxutils import escape

from tables import number
from targets import judge

STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de } .text { fill: #1f2328 } .faint { fill: #59636e }
  .grid { stroke: #d8dee4 } .axis { stroke: #59636e } .target { stroke: #1f2328 }
  .a { fill: #2f6fd0; stroke: #2f6fd0 } .b { fill: #d9730d; stroke: #d9730d } .c { fill: #1a7f5a; stroke: #1a7f5a }
  .line { fill: none; stroke-width: 2 } .dot { stroke: none }
  text { font: 12px system-ui, sans-serif } .value { stroke: #ffffff; stroke-width: 3px; paint-order: stroke } .title { font-size: 14px; font-weight: 600 } .faint { font-size: 11px }
  @media (prefers-color-scheme: dark) {
    .card { fill: #151b23; stroke: #3d444d } .text { fill: #f0f6fc } .faint { fill: #9198a1 }
    .grid { stroke: #2a313a } .axis { stroke: #9198a1 } .target { stroke: #f0f6fc }
    .a { fill: #5b9bff; stroke: #5b9bff } .b { fill: #f0883e; stroke: #f0883e } .c { fill: #3fb98a; stroke: #3fb98a } .value { stroke: #151b23 }
  }
"""


class Drawing:
    def __init__(self, width, height, title):
        self.width, self.height, self.title = width, height, title
        self.parts = []
        self.text(16, 26, title, "text title")

    def add(self, part):
        self.parts.append(part)

    def text(self, x, y, text, style="text", anchor="start"):
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, style, extra=""):
        self.add(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}" {extra}/>')

    def bar(self, x, y, width, height, style):
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height}" class="{style}" rx="2"/>')

    def svg(self):
        card = f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="6" class="card"/>'
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
                f'height="{self.height}" role="img" aria-label="{escape(self.title)}"><style>{STYLE}</style>'
                + card + "".join(self.parts) + "</svg>\n")


def breadth(text):
    """About how wide a text of 12 px is."""
    return 6.8 * len(text)


def ticks(most, count=4):
    """Round numbers from 0 to at least `most`."""
    if most <= 0:
        return [0, 1]
    rough = most / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough)
    return [step * n for n in range(math.ceil(most / step - 1e-9) + 1)]


def short(value):
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def ratios(runs):
    """How many times better than the peer, from the worst pair to the best, with the target as a mark."""
    rows = []
    for j in judge(runs):
        if j.ratio:
            of = (lambda ratio: float(ratio)) if j.figure.more_is_better else (lambda ratio: float(1 / ratio))
            pairs = sorted(of(ratio) for ratio in j.ratios)
            wanted = of(j.figure.ratio) if j.figure.ratio else None
            rows.append((j.figure.name, of(j.ratio), pairs, wanted, j.met))
    if not rows:
        return None
    left = 24 + max(breadth(name) for name, *_ in rows)
    top, step, plot = 66, 24, 420
    shown = [value for _, better, pairs, wanted, _ in rows for value in (better, *pairs, wanted or 1)]
    low, high = min(0.5, *shown) / 1.1, max(2, *shown) * 1.1
    at = lambda value: left + plot * math.log(value / low) / math.log(high / low)
    bottom = top + step * len(rows)
    d = Drawing(round(left + plot + 100), bottom + 52, "Turnstile against the peer")
    d.text(16, 46, "bar: times better than the peer, the median of the pairs; line: the worst pair to the best; dashed mark: the target", "faint")
    for value in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64, 128):
        if low <= value <= high:
            d.line(at(value), top - 6, at(value), bottom, "axis" if value == 1 else "grid")
            d.text(at(value), bottom + 16, f"{value:g}×" if value >= 1 else f"1/{1 / value:g}×", "faint", "middle")
    for n, (name, better, pairs, wanted, met) in enumerate(rows):
        y = top + n * step
        d.text(left - 8, y + 12, name, "text", "end")
        d.bar(min(at(1), at(better)), y + 2, abs(at(better) - at(1)), 13, "b" if met is False or better < 1 else "a")
        d.line(at(pairs[0]), y + 8.5, at(pairs[-1]), y + 8.5, "target")
        if wanted:
            d.line(at(wanted), y - 2, at(wanted), y + 18, "target", 'stroke-dasharray="3 2" stroke-width="2"')
        verdict = ", missed" if met is False else ", worse" if better < 1 else ""
        d.text(max(at(pairs[-1]), at(wanted or 1), at(1)) + 6, y + 12, f"{better:.1f}×" + verdict, "text value")
    d.text(left + plot / 2, bottom + 36, "times better than the peer (logarithmic)", "faint", "middle")
    return "ratios.svg", "How many times better than the peer each figure is, with its target", d.svg()


def bars(name, title, alt, panels):
    """Panels of (heading with unit, [(label, value, style)]), one below the other."""
    panels = [(heading, rows) for heading, rows in panels if rows]
    if not panels:
        return None
    left = 24 + max(breadth(label) for _, rows in panels for label, _, _ in rows)
    plot, step, y = 420, 24, 44
    height = y + sum(62 + step * len(rows) for _, rows in panels)
    d = Drawing(round(left + plot + 80), height, title)
    for heading, rows in panels:
        scale = ticks(max(value for _, value, _ in rows))
        at = lambda value, scale=scale: left + plot * value / scale[-1]
        d.text(left, y + 12, heading, "text")
        top, y = y + 20, y + 20 + step * len(rows)
        for tick in scale:
            d.line(at(tick), top, at(tick), y, "grid")
            d.text(at(tick), y + 16, short(tick), "faint", "middle")
        for n, (label, value, style) in enumerate(rows):
            d.text(left - 8, top + n * step + 16, label, "text", "end")
            d.bar(left, top + n * step + 5, at(value) - left, 14, style)
            d.text(at(value) + 6, top + n * step + 16, number(value), "text value")
        y += 42
    return name, alt, d.svg()


def limit(runs):
    lines = runs.merged("limit", "who")
    styles = ["a", "b", "c"]
    rows = lambda key: [(line["who"], line[key], styles[n % 3]) for n, line in enumerate(lines)]
    return bars("limit.svg", "The engine beside a bare loop on the same broker", "Orders per second and CPU, engine and bare loop", [
        ("orders, 1/s", rows("orders_per_s")),
        ("own CPU for 1000 orders, s", rows("app_cpu_s_per_1000")),
        ("CPU of the broker for 1000 orders, s", rows("broker_cpu_s_per_1000")),
    ])


def curves(name, title, alt, unit, points):
    """Three panels over the same logarithmic x: throughput, latency, memory."""
    if len({x for x, _ in points}) < 2:
        return None
    xs = sorted({x for x, _ in points})
    series = [
        ("orders, 1/s", [("", "a", lambda l: l["orders_per_s"])]),
        ("latency, ms", [("p50", "a", lambda l: l["latency_ms"]["p50"]), ("p99", "b", lambda l: l["latency_ms"]["p99"])]),
        ("RSS, MiB", [("", "c", lambda l: l["rss_mb"])]),
    ]
    width, gap, top, height = 220, 74, 74, 170
    d = Drawing(3 * (width + gap) + 30, top + height + 56, title)
    for n, (heading, lines) in enumerate(series):
        left = 64 + n * (width + gap)
        values = {label: [(x, pick(line)) for x, line in sorted(points, key=lambda p: p[0])] for label, _, pick in lines}
        scale = ticks(max(v for one in values.values() for _, v in one))
        across = lambda x, left=left: left + 10 + (width - 20) * math.log(x / xs[0]) / math.log(xs[-1] / xs[0])
        up = lambda v, scale=scale: top + height - height * v / scale[-1]
        d.text(left, top - 18, heading)
        for tick in scale:
            d.line(left, up(tick), left + width, up(tick), "grid")
            d.text(left - 6, up(tick) + 4, short(tick), "faint", "end")
        d.line(left, top + height, left + width, top + height, "axis")
        for x in xs:
            d.text(across(x), top + height + 16, short(x), "faint", "middle")
        d.text(left + width / 2, top + height + 36, unit, "faint", "middle")
        for label, style, _ in lines:
            path = " ".join(f"{across(x):.1f},{up(v):.1f}" for x, v in values[label])
            dashes = 'stroke-dasharray="6 3"' if label == "p99" else ""
            d.add(f'<polyline points="{path}" class="{style} line" style="fill: none" {dashes}/>')
            for x, v in values[label]:
                d.add(f'<circle cx="{across(x):.1f}" cy="{up(v):.1f}" r="3.5" class="{style} dot"/>')
        if len(lines) > 1:
            for k, (label, style, _) in enumerate(lines):
                x = left + width - 100 + 52 * k
                d.line(x, top - 22, x + 18, top - 22, style, 'stroke-width="2"' + (' stroke-dasharray="6 3"' if label == "p99" else ""))
                d.text(x + 22, top - 18, label, "faint")
    return name, alt, d.svg()


def growth(runs):
    lines = runs.merged("growth", "axis", "live", "partitions", "instances", "standbys")
    of = lambda axis: [(line[axis], line) for line in lines if line["axis"] == axis]
    yield curves("growth-live.svg", "With more live orders", "Throughput, latency and memory over the number of live orders", "live orders", of("live"))
    yield curves("growth-partitions.svg", "With more partitions", "Throughput, latency and memory over the number of partitions", "partitions", of("partitions"))
    name = lambda n, line: "1 instance" if n == 1 else f"{n}, {line['standbys'] or 'no'} standby"
    rows = lambda pick: [(name(n, line), pick(line), "abc"[k % 3]) for k, (n, line) in enumerate(of("instances"))]
    yield bars("growth-instances.svg", "Two instances against one, on the same machine", "Throughput and latency of one and of two instances", [
        ("orders, 1/s", rows(lambda l: l["orders_per_s"])),
        ("latency p99, ms", rows(lambda l: l["latency_ms"]["p99"])),
        ("RSS of all, MiB", rows(lambda l: l["rss_mb"])),
    ])


def all_of(pairs, own):
    """File name, what it shows in words, and the SVG of each plot that there are figures for."""
    return [plot for plot in [ratios(pairs), limit(own), *growth(own)] if plot]
