"""A flame graph as SVG, from what `perf script -F comm,ip,sym` prints.

Below is the thread, above it who was called by whom; the width is the share of the samples.
Each box tells its name and share where the pointer rests on it.
"""
import colorsys
import datetime
import re
import sys
import zlib
from xml.sax.saxutils import escape

from header import said

WIDTH, ROW, LEAST = 1200, 17, 0.0008
HASH = re.compile(r"::h[0-9a-f]{16}$")


def colour_of(name):
    """The same name has the same colour, light enough for dark letters."""
    shade = zlib.crc32(name.encode())
    hue, light, saturation = 18 + shade % 38, 66 + shade // 4096 % 14, 70 + shade // 64 % 25
    rgb = colorsys.hls_to_rgb(hue / 360, light / 100, saturation / 100)
    return "#" + "".join(f"{round(part * 255):02x}" for part in rgb)


class Frame:
    def __init__(self, name):
        self.name, self.samples, self.callees = name, 0, {}


def fold(lines):
    """The tree of all stacks."""
    root, thread, stack = Frame("all"), None, []

    def add():
        if thread is None:
            return
        frame = root
        frame.samples += 1
        for name in [thread, *reversed(stack)]:
            frame = frame.callees.setdefault(name, Frame(name))
            frame.samples += 1

    for line in lines:
        if not line.strip():
            add()
            thread, stack = None, []
        elif line[0] not in " \t" or thread is None:
            # Threads of a pool are one.
            thread = re.sub(r"[\d:-]+$", "", line.strip()) or line.strip()
        else:
            parts = line.split(None, 1)
            stack.append(HASH.sub("", parts[1].strip()) if len(parts) > 1 else "[unknown]")
    add()
    return root


def depth(frame, total):
    kept = [c for c in frame.callees.values() if c.samples / total >= LEAST]
    return 1 + max((depth(c, total) for c in kept), default=0)


def draw(root):
    if not root.samples:
        raise SystemExit("figures: perf has no samples")
    rows = depth(root, root.samples)
    drawn = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, commit {said('git', 'rev-parse', '--short=10', 'HEAD').strip()}"
    height = rows * ROW + 50
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
           "<style>.card{fill:#fff}text{font:11px ui-monospace,monospace;fill:#1f2328}.t{font:600 14px system-ui,sans-serif}"
           "rect{stroke:#fff;stroke-width:.5}</style>"
           f'<rect class="card" width="{WIDTH}" height="{height}"/>'
           f'<text class="t" x="10" y="22">CPU samples by stack ({root.samples} samples; width: share of them; {drawn})</text>']

    def box(frame, x, level):
        width = frame.samples / root.samples * (WIDTH - 20)
        y = height - 12 - (level + 1) * ROW
        colour = colour_of(frame.name)
        name, share = escape(frame.name), frame.samples / root.samples
        letters = int((width - 6) / 6.7)
        label = frame.name if len(frame.name) <= letters else frame.name[: max(letters - 1, 0)] + "…"
        out.append(f'<g><title>{name}: {share:.2%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" '
                   f'fill="{colour}"/>' + (f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(label)}</text>' if letters >= 3 else "") + "</g>")
        for callee in sorted(frame.callees.values(), key=lambda c: c.name):
            if callee.samples / root.samples >= LEAST:
                box(callee, x, level + 1)
            x += callee.samples / root.samples * (WIDTH - 20)

    box(root, 10, 0)
    return "".join(out) + "</svg>\n"


def show():
    sys.setrecursionlimit(10000)
    sys.stdout.write(draw(fold(sys.stdin)))
    return 0
