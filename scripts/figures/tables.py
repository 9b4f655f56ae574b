"""Tables in Markdown, and how a number is shown in one."""
from statistics import median

from targets import NONE


def number(value):
    if value is None:
        return NONE
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}"


def middle(values):
    return number(median(values)) if values else NONE


def times(ratio):
    return NONE if ratio is None else f"{ratio:.2f}×"


def spread(ratios):
    """The median, and from where to where the pairs went."""
    if len(ratios) < 2:
        return times(ratios[0] if ratios else None)
    return f"{times(median(ratios))} ({min(ratios):.2f} … {max(ratios):.2f})"


def table(head, rows, right=()):
    rule = ["---:" if n in right else "---" for n in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, rule, *rows]) + "\n"


def listed(values):
    """What differs side by side, each once."""
    return "; ".join(dict.fromkeys(map(str, values))) or NONE
