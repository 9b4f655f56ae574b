"""The lines of measurements: one JSON object each, as they were written.

A header (phase "header": machine, versions, settings, commit) and the lines below it, up to the next
header, are a section: what it says holds for them and for no others. The lines are those of the
benchmark (tags impl, run and pair, and a phase), or of our own figures (phase limit, growth, timers,
wheel or restore). A line that is no JSON is a run that broke: it is kept as such.
"""
import json
from dataclasses import dataclass, field
from statistics import median


def medians(lines, keys=()):
    first = lines[0]
    merged = {}
    for key, value in first.items():
        of_all = [line[key] for line in lines if key in line]
        if key in keys:
            merged[key] = value
        elif isinstance(value, dict):
            merged[key] = medians(of_all)
        else:
            merged[key] = median(of_all) if isinstance(value, (int, float)) else value
    return merged


@dataclass
class Section:
    path: str
    header: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)

    @property
    def of_the_benchmark(self):
        return any("impl" in line for line in self.lines)


class Runs:
    def __init__(self, sections, broken=()):
        self.sections, self.broken = sections, list(broken)

    @classmethod
    def read(cls, paths):
        runs = cls([])
        for path in paths:
            section = None
            with open(path, encoding="utf-8") as lines:
                for number, text in enumerate(lines, 1):
                    if not text.strip():
                        continue
                    try:
                        line = json.loads(text)
                        is_header = line["phase"] == "header"
                    except (ValueError, KeyError, TypeError):
                        runs.broken.append(f"{path}:{number} is no line of a measurement")
                        continue
                    if is_header or section is None:
                        section = Section(path, line if is_header else {})
                        runs.sections.append(section)
                    if not is_header:
                        section.lines.append(line)
        return runs

    def against_the_peer(self):
        """The sections of the benchmark; all of them have the same sizes, or they are not of one table."""
        runs = Runs([section for section in self.sections if section.of_the_benchmark])
        sizes = {}
        for section in runs.sections:
            sizes.setdefault(json.dumps(section.header.get("sizes", {})), section.path)
        if len(sizes) > 1:
            raise SystemExit(f"figures: {' and '.join(sizes.values())} differ in their sizes: give one of them as --column")
        return runs

    def alone(self):
        return Runs([section for section in self.sections if section.lines and not section.of_the_benchmark])

    @property
    def lines(self):
        return [line for section in self.sections for line in section.lines]

    @property
    def headers(self):
        return [section.header for section in self.sections if section.header]

    @property
    def paths(self):
        return list(dict.fromkeys(section.path for section in self.sections))

    @property
    def sizes(self):
        return next((header["sizes"] for header in self.headers if header.get("sizes")), {})

    def of(self, phase, impl=None):
        return [line for line in self.lines if line["phase"] == phase and impl in (None, line.get("impl"))]

    def by_run(self, impl=None):
        """The lines of each run of the benchmark, in the order in which they ran: by impl and by what
        makes two runs a pair."""
        found = {}
        for number, section in enumerate(self.sections):
            for line in section.lines:
                if "impl" in line and impl in (None, line["impl"]):
                    pair = number, line.get("pair"), line.get("run")
                    found.setdefault((line["impl"], pair), []).append(line)
        return found

    def merged(self, phase, *keys):
        """One line for those that agree in `keys`: what was measured is the median of theirs."""
        groups = {}
        for line in self.of(phase):
            groups.setdefault(tuple(line.get(key) for key in keys), []).append(line)
        return [medians(lines, keys) for lines in groups.values()]

    def violations(self):
        """What must not be: each as a sentence. Targets that are missed are not among them."""
        found = list(self.broken)
        for (impl, (number, pair, run)), lines in self.by_run().items():
            name = f"{self.sections[number].path}: {impl}, pair {pair or run or '?'}"
            for line in lines:
                if line["phase"] == "check" and ("violations" not in line or line["violations"]):
                    found.append(f"{name}: check.py says {json.dumps(line.get('violations', 'nothing'))}")
                if line.get("timeout"):
                    found.append(f"{name}: {line['phase']} did not finish")
                if line.get("early"):
                    found.append(f"{name}: {line['early']} timers fired early")
                if line.get("expired_twice"):
                    found.append(f"{name}: {line['expired_twice']} orders expired twice")
                if line.get("reads", {}).get("errors"):
                    found.append(f"{name}: {line['reads']['errors']} reads were answered with errors")
            # A broker has its tickets made first, and is checked last.
            count = lambda phase, lines=lines: sum(line["phase"] == phase for line in lines)
            if count("check") < max(1, count("tickets")):
                found.append(f"{name}: a line of check.py is missing, so nobody looked for violations")
        return found
