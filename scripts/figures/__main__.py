"""Turns lines of measurements into tables and plots.

  figures header [--bench [--peer]]       prints the header line of a run, from this machine and clone
  figures report [--into PAGE] [--plots DIR] FILE…
                                          prints the report, draws the plots into DIR; exit 1 where a promise was broken
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
    runs = Runs(arguments.files)
    text = page.report(runs, arguments.plots, os.path.dirname(arguments.into) if arguments.into else arguments.plots)
    if arguments.into:
        page.fill(arguments.into, text)
    else:
        print(text)
    violations = runs.violations()
    for violation in violations:
        print(f"figures: VIOLATION: {violation}", file=sys.stderr)
    return 1 if violations else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("header")
    command.add_argument("--bench", action="store_true")
    command.add_argument("--peer", action="store_true")
    command.set_defaults(run=lambda a: header.show(a.bench, a.peer))
    command = commands.add_parser("report")
    command.add_argument("--into", help="a page with the markers to put it between")
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
