"""The tables against the peer."""
from origin import commit, link, measured_on, processor, size, started
from reasons import reason
from tables import listed, middle, spread, table, times
from targets import NONE, judge

HALF_A_SECOND_MS = 500


def measured(runs):
    return [j for j in judge(runs) if j.ours or j.peers]


def comparable(runs, other):
    """Whether the same was done in both, so that their figures may stand side by side."""
    return bool(other.sections) and (not runs.sections or other.sizes == runs.sizes)


def rows(judged):
    met = {True: "yes", False: "**no**", None: NONE}
    return table(["figure", "Turnstile", "Kafka Streams", "ratio", "target", "met"],
                 [[j.figure, middle(j.ours), middle(j.peers), spread(j.ratios), j.figure.target(), met[j.met]] for j in judged], (1, 2, 3, 4))


def how(runs):
    """What the numbers of the table are."""
    count = {impl: len(runs.by_run(impl)) for impl in ("turnstile", "java")}
    if not all(count.values()):
        return f"Medians of {max(count.values())} runs.\n"
    first, sides = {}, {}
    for impl, pair in runs.by_run():
        first.setdefault(pair, impl)
        sides.setdefault(pair, set()).add(impl)
    pairs = [pair for pair, both in sides.items() if len(both) == 2]
    ours = sum(first[pair] == "turnstile" for pair in pairs)
    halves = f" Left out: {len(sides) - len(pairs)} of which one side is missing." if len(sides) > len(pairs) else ""
    if len(pairs) == 1:
        return f"One pair: each value is that of one run. {'Turnstile' if ours else 'Kafka Streams'} ran first.{halves}\n"
    return (f"{len(pairs)} pairs; Turnstile ran first in {'each' if ours == len(pairs) else ours} of them.{halves} A value is the median of its "
            "side's runs. The ratio is Turnstile's to Kafka Streams' within a pair: the median of the pairs, in brackets the least and the "
            "greatest. The target is held against this median.\n")


def against(runs):
    judged = measured(runs)
    if not judged:
        return ""
    verdicts = [j.met for j in judged if j.met is not None]
    where = f"{listed(map(processor, runs.headers))}, commit {listed(map(commit, runs.headers))}. " if runs.headers else ""
    return f"{where}{sum(verdicts)} of {len(verdicts)} targets are met.\n\n{rows(judged)}\n{how(runs)}"


def worse(runs, columns, seen_from):
    """In what the peer is better, or neither: here at the median or in any pair, elsewhere at the median."""
    elsewhere = [judge(column) for column in columns if comparable(runs, column)]
    found = []
    for n, j in enumerate(judge(runs)):
        if not j.ratios or (j.better and j.in_all_pairs and all(other[n].better in (True, None) for other in elsewhere)):
            continue
        better = "either" if not j.in_all_pairs else "Turnstile" if j.better else "Kafka Streams"
        told = [j.figure, spread(j.ratios), better, *([listed_ratios(other[n] for other in elsewhere)] if elsewhere else []), reason(j.figure, seen_from)]
        found.append(((better == "Turnstile", better == "either"), told))
    if not found:
        return ""
    head = ["figure", "ratio", "better in all pairs", *(["on other machines"] if elsewhere else []), "why"]
    return table(head, [told for _, told in sorted(found, key=lambda f: f[0])], (1,))


def listed_ratios(judged):
    return ", ".join(times(j.ratio) for j in judged)


def missed(runs, seen_from):
    judged = [j for j in measured(runs) if j.met is False]
    if not judged:
        return ""
    shown = lambda j: f"{middle(j.ours)} {j.figure.unit}" if j.figure.absolute is not None else times(j.ratio)
    text = table(["figure", "measured", "target", "why"], [[j.figure, shown(j), j.figure.target(), reason(j.figure, seen_from)] for j in judged], (1, 2))
    return text + late_starts(runs)


def late_starts(runs):
    """In how many runs P2 met the pause of the load generator."""
    late = {impl: [line["latency_ms"]["max"] >= HALF_A_SECOND_MS for line in runs.of("p2-latency", impl) if "latency_ms" in line]
            for impl in ("turnstile", "java")}
    if not any(any(of_one) for of_one in late.values()):
        return ""
    told = [f"{sum(late[impl])} of {len(late[impl])} runs of {name}" for impl, name in (("turnstile", "Turnstile"), ("java", "Kafka Streams")) if late[impl]]
    return f"\nIn P2 some event was half a second late or more in {' and '.join(told)}.\n"


def machines(runs, columns, seen_from):
    """The ratio of each figure on each machine."""
    columns = [column for column in columns if comparable(runs, column)]
    if not columns:
        return ""
    columns = [column for column in [runs, *columns] if column.sections]
    each = [judge(column) for column in columns]
    told = [["file", *(listed(link(path, seen_from) for path in c.paths) for c in columns)],
            ["started, UTC", *(listed(started(h)[:10] for h in c.headers) for c in columns)],
            ["commit", *(listed(map(commit, c.headers)) for c in columns)],
            ["pairs", *(len({pair for _, pair in c.by_run()}) for c in columns)]]
    for of_figure in zip(*each):
        if any(j.ratios for j in of_figure):
            told.append([of_figure[0].figure.name, *(f"**{times(j.ratio)}**" if j.met is False else times(j.ratio) for j in of_figure)])
    head = ["", *(listed(map(processor, c.headers)) for c in columns)]
    return table(head, told, range(1, len(head))) + "\nMedians of the ratios of pairs; bold where a target is missed.\n"


def other_sizes(runs, columns, seen_from):
    """Columns that may not stand beside `runs`, each with a table of its own."""
    text = []
    for column in columns:
        if column.sections and not comparable(runs, column):
            differ = ", ".join(f"`{key}` {size(value)}" for key, value in column.sizes.items() if value != runs.sizes.get(key))
            text.append(f"With {differ}:\n\n{rows(measured(column))}\n{how(column)}\n{measured_on(column, seen_from)}")
    return "\n".join(text)
