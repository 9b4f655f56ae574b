"""The report as blocks of Markdown, and their places in a page.

A page has a pair of markers for each block, `<!-- begin: NAME -->` and `<!-- end: NAME -->`: between them
stands what is measured, around them what somebody wrote.
"""
import os
import re

import alone
import comparison
import origin
import plots

MARKERS = re.compile(r"<!-- begin: (\S+) -->\n.*?<!-- end: \1 -->", re.DOTALL)


class Report:
    """What is measured of `runs`, beside that of `columns`, which are Runs too."""

    def __init__(self, runs, columns=()):
        self.pairs, self.own = runs.against_the_peer(), runs.alone()
        self.pair_columns = [column.against_the_peer() for column in columns]
        self.own_columns = [column.alone() for column in columns]
        self.each = [self._of(of, path) for of in [runs, *columns] for path in of.paths]
        self.violations = [violation for of in [runs, *columns] for violation in of.violations()]

    @staticmethod
    def _of(runs, path):
        return type(runs)([section for section in runs.sections if section.path == path])

    def blocks(self, seen_from, drawn):
        """Name, title and text of each block, as seen from a page in the folder `seen_from`."""
        shown = lambda text, *names: "\n".join([*(drawn[name] for name in names if name in drawn), *([text] if text else [])])
        pairs, own = self.pairs, self.own
        yield "violations", "VIOLATIONS", "".join(f"- {v}\n" for v in self.violations)
        yield "against", "Against the peer", comparison.against(pairs)
        yield "worse", "Where it is worse, or no better", comparison.worse(pairs, self.pair_columns, seen_from)
        yield "missed", "Targets that are missed", comparison.missed(pairs, seen_from)
        yield "ratios", "Ratios", shown("", "ratios.svg")
        yield "pairs-measured-on", "Against the peer: measured on", origin.measured_on(pairs, seen_from)
        yield "machines", "On other machines", comparison.machines(pairs, self.pair_columns, seen_from)
        yield "other-sizes", "With other sizes", comparison.other_sizes(pairs, self.pair_columns, seen_from)
        yield "limit", "The ceiling: a bare loop", shown(alone.limit(own), "limit.svg")
        yield "timers", "Timers", alone.timers(own)
        yield "restore", "Restore", alone.restore(own)
        yield "growth", "Growth", shown(alone.growth(own), "growth-live.svg", "growth-partitions.svg", "growth-instances.svg")
        yield "own-measured-on", "Alone: measured on", origin.measured_on(own, seen_from)
        yield "own-machines", "Alone, on other machines", alone.machines(own, self.own_columns, seen_from)
        yield "files", "Files", origin.files(self.each, seen_from)

    def settings(self, seen_from):
        yield "settings", "Settings", origin.settings(self.each, seen_from)
        yield "disturbance", "Who else used the CPU", origin.disturbance(self.each, seen_from)

    def draw(self, folder, seen_from):
        """Draws the plots into `folder`; the Markdown that shows each, by its file name."""
        os.makedirs(folder, exist_ok=True)
        drawn = {}
        for name, alt, svg in plots.all_of(self.pairs, self.own):
            path = os.path.join(folder, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(svg)
            drawn[name] = f"![{alt}]({os.path.relpath(path, seen_from or '.')})\n"
        return drawn


def together(blocks):
    """Blocks one below the other, those of which there are figures."""
    return "\n".join(f"### {title}\n\n{text}" for _, title, text in blocks if text)


def fill(path, blocks):
    """Puts each block between its markers; none of which there are figures is left out."""
    with open(path, encoding="utf-8") as file:
        page = file.read()
    texts = {name: text for name, _, text in blocks}
    places = [place.group(1) for place in MARKERS.finditer(page)]
    for name in places:
        if name not in texts or places.count(name) > 1:
            raise SystemExit(f"figures: {path} has markers of {name}, which is no block, or has them more than once")
    homeless = [name for name, text in texts.items() if text and name not in places]
    if homeless:
        raise SystemExit(f"figures: {path} has no lines <!-- begin: NAME --> and <!-- end: NAME --> for {', '.join(homeless)}")
    between = lambda place: f"<!-- begin: {place.group(1)} -->\n\n{texts[place.group(1)] or 'Not measured.' + chr(10)}\n<!-- end: {place.group(1)} -->"
    with open(path, "w", encoding="utf-8") as file:
        file.write(MARKERS.sub(between, page))


def write_settings(path, report):
    """The page of settings as a whole."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("# Settings of the measurements, and who else used the CPU\n\nWritten by `./dev bench report --settings`, from the headers and the lines "
                   "of the files.\n\n" + together(report.settings(os.path.dirname(path))).replace("### ", "## "))
