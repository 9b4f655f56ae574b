"""The lines of measurements: one JSON object each, as they were written.

A file begins with a header (phase "header": machine, versions, settings, commit); what
follows are the lines of the benchmark (tags impl, run and pair, and a phase) and of our own
figures (phase limit, growth, timers, wheel or restore). Files are read one after the other, each
with a header of its own. A line that is no JSON is a run that broke: it is kept as such.
"""
import json
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


class Runs:
    def __init__(self, paths):
        self.headers, self.lines, self.broken = [], [], []
        for path in paths:
            with open(path, encoding="utf-8") as lines:
                for number, text in enumerate(lines, 1):
                    if text.strip():
                        self._read(f"{path}:{number}", text)

    def _read(self, where, text):
        try:
            line = json.loads(text)
            phase = line["phase"]
        except (ValueError, KeyError, TypeError):
            self.broken.append(f"{where} is no line of a measurement")
            return
        if phase == "header":
            self.headers.append(line)
        else:
            self.lines.append(line)

    def of(self, phase, impl=None):
        return [line for line in self.lines if line["phase"] == phase and impl in (None, line.get("impl"))]

    def merged(self, phase, *keys):
        """One line for those that agree in `keys`: what was measured is the median of theirs."""
        groups = {}
        for line in self.of(phase):
            groups.setdefault(tuple(line.get(key) for key in keys), []).append(line)
        return [medians(lines, keys) for lines in groups.values()]

    def has(self, impl):
        return any(line.get("impl") == impl for line in self.lines)

    def violations(self):
        """What must not be: each as a sentence. Targets that are missed are not among them."""
        found = list(self.broken)
        for line in self.lines:
            run = f"{line.get('impl', 'turnstile')}, pair {line.get('pair', line.get('run', '?'))}"
            if line["phase"] == "check" and ("violations" not in line or line["violations"]):
                found.append(f"{run}: check.py says {json.dumps(line.get('violations', 'nothing'))}")
            if line.get("timeout"):
                found.append(f"{run}: {line['phase']} did not finish")
            if line.get("expired_twice"):
                found.append(f"{run}: {line['expired_twice']} orders expired twice")
            if line.get("reads", {}).get("errors"):
                found.append(f"{run}: {line['reads']['errors']} reads were answered with errors")
        for impl in ("turnstile", "java"):
            if self.has(impl) and not self.of("check", impl):
                found.append(f"{impl}: no line of check.py, so nobody looked for violations")
        return found
