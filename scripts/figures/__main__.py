"""Turns lines of measurements into tables and plots.

  figures header [--bench [--peer]]       prints the header line of a run, from this machine and clone
  figures report [--into PAGE] [--settings PAGE] [--plots DIR] [--column FILE]… FILE…
                                          prints the report of FILEs, or puts it into PAGE, and draws the plots into DIR;
                                          each column is set beside them; exit 1 where a promise was
                                          broken: then no page is touched
  figures micro BASE WORK                 compares outputs of divan, one file a round in each folder
  figures executables                     of Cargo's messages on stdin: the benchmarks that were compiled
  figures flame                           of stacks on stdin, as perf script prints them: a flame graph

Python's standard library is all it needs.
"""
import argparse
import os
import sys

import flame
import header
import micro
import page
from runs import Runs


def report(arguments):
    columns = [Runs.read([path]) for path in arguments.column]
    made = page.Report(Runs.read(arguments.files), columns)
    for violation in made.violations:
        print(f"figures: VIOLATION: {violation}", file=sys.stderr)
    if made.violations and arguments.into:
        raise SystemExit(f"figures: {arguments.into} is left as it is")
    seen_from = os.path.dirname(arguments.into) if arguments.into else arguments.plots
    drawn = made.draw(arguments.plots, seen_from) if arguments.plots else {}
    blocks = list(made.blocks(seen_from, drawn))
    if arguments.into:
        page.fill(arguments.into, [*blocks, ("command", "The command", command_of(arguments))])
    else:
        print(page.together([*blocks, *([] if arguments.settings else made.settings(seen_from))]))
    if arguments.settings:
        page.write_settings(arguments.settings, made)
    return 1 if made.violations else 0


def command_of(arguments):
    """The command that makes the page again, from the top of the clone."""
    lines = [["./dev bench report"]]
    for option in ("into", "settings", "plots"):
        if getattr(arguments, option):
            lines[0] += [f"--{option}", getattr(arguments, option)]
    lines += [["--column", path] for path in arguments.column] + [arguments.files]
    return "    " + " \\\n        ".join(" ".join(line) for line in lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("header")
    command.add_argument("--bench", action="store_true")
    command.add_argument("--peer", action="store_true")
    command.set_defaults(run=lambda a: header.show(a.bench, a.peer))
    command = commands.add_parser("report")
    command.add_argument("--into", help="a page with the markers to put it between")
    command.add_argument("--settings", help="a page that is written: settings, and who else used the CPU")
    command.add_argument("--column", action="append", default=[], metavar="FILE", help="what was measured elsewhere or with other sizes")
    command.add_argument("--plots", help="the folder of the SVG files; without it none are drawn")
    command.add_argument("files", nargs="+")
    command.set_defaults(run=report)
    command = commands.add_parser("micro")
    command.add_argument("base")
    command.add_argument("work")
    command.set_defaults(run=lambda a: micro.compare(a.base, a.work))
    commands.add_parser("executables").set_defaults(run=lambda _: micro.executables())
    commands.add_parser("flame").set_defaults(run=lambda _: flame.show())
    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
