"""The page: puts a part's table between its marks in docs/finding.md, and has its chart drawn."""

import json
import os
import re
import subprocess
import sys

from . import host

PAGE = os.path.join(host.ROOT, "docs/finding.md")
DRAW = os.path.join(host.ROOT, "docs/charts/draw")


def show(part, report):
    print("\n".join(part.table(report)), flush=True)


def section(part, report):
    """What stands between a part's marks."""
    told = report["host"]
    at_a_time = {1: "one fuzzer at a time"}.get(
        report["at_a_time"], f"{report['at_a_time']} fuzzers at a time, one on each CPU")
    versions = ", ".join(report["versions"])
    yield f"![{part.TITLE}](charts/{report['bench']}.svg)"
    yield ""
    yield from part.table(report)
    yield ""
    yield (f"By `{report['command']}` on {report['date']}, commit {report['commit']}: "
           f"{told['cpu']}, {told['cpus']} CPUs, {told['kvm']}, Linux {told['kernel']}, load "
           f"{told['load']:.1f} before it; {at_a_time}, {rounds(report['rounds'])}. {versions}.")


def rounds(number):
    return "one round" if number == 1 else f"medians of {number} rounds"


def write(part, report):
    """Writes the part's section and its chart."""
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    begin, end = f"<!-- generated: {part.NAME} -->\n", f"<!-- end: {part.NAME} -->\n"
    if begin not in page or end not in page:
        raise host.Failed(f"{PAGE} has no marks for {part.NAME}")
    before, _, rest = page.partition(begin)
    text = re.sub(r" +$", "", "\n".join(section(part, report)), flags=re.MULTILINE)
    with open(PAGE + ".new", "w", encoding="utf-8") as file:
        file.write(before + begin + text + "\n" + end + rest.partition(end)[2])
    os.replace(PAGE + ".new", PAGE)
    path = os.path.join(host.kept("reports"), f"{report['bench']}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
    subprocess.run([sys.executable, DRAW, path], check=True)
