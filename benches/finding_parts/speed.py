"""Speed: executions per second of a campaign, with coverage, on one parser."""

import os
import re

from . import fuzzers, host

NAME = "speed"
TITLE = "Executions per second of a campaign"
HELP = ["executions per second on the parser of tests/guests/c/json.c, with coverage: 3 minutes."]
OPTIONS = {"seconds": (20, "N", "how long each fuzzer runs")}
JSON = os.path.join(host.ROOT, "tests/guests/c/json.c")
# The same parser behind the function that libFuzzer calls.
HARNESS = os.path.join(host.ROOT, "cli/src/bench/campaign/harness.c")
FUZZERS = {fuzzers.DEJAVM: JSON, fuzzers.AFL: HARNESS, fuzzers.LIBFUZZER: HARNESS}
SEEDS = [b'{"name": "value", "list": [1, 2.5e3, true, null]}', b'["\\u00e9\\n", {"a": {}}, -0.1]']
# Where each keeps the number of its executions, and what stands before it.
EXECUTIONS = {fuzzers.DEJAVM: ("out/fuzzer_stats", r"execs_done\s*: "),
              fuzzers.AFL: ("out/default/fuzzer_stats", r"execs_done\s*: "),
              fuzzers.LIBFUZZER: ("log", r"stat::number_of_executed_units: ")}


def measure(options):
    names = host.wanted_fuzzers(FUZZERS, options)
    for name in names:
        host.need(*fuzzers.tools(name))
    with host.scratch() as folder:
        seeds = os.path.join(folder, "seeds")
        os.mkdir(seeds)
        for number, seed in enumerate(SEEDS):
            with open(os.path.join(seeds, str(number)), "wb") as file:
                file.write(seed)
        jobs = []
        for name in names:
            program = os.path.join(folder, name)
            fuzzers.compile_for(name, FUZZERS[name], program, [])
            jobs += [job(options, name, program, seeds, seed)
                     for seed in range(1, options.rounds + 1)]
        rates = iter(host.in_turn(jobs, options.cpus))
        return [row(name, [next(rates) for _ in range(options.rounds)]) for name in names]


def job(options, name, program, seeds, seed):
    def run(cpu):
        folder = f"{program}-{seed}"
        os.mkdir(folder)
        words, _ = fuzzers.command(name, options, [program], seeds, os.path.join(folder, "out"), seed)
        with fuzzers.Campaign(words, cpu, os.path.join(folder, "log")) as campaign:
            if not campaign.wait(options.seconds):
                raise host.Failed(f"{name} ended by itself:\n{campaign.said()[-1000:]}")
            seconds = campaign.seconds()
        rate = executions(name, folder) / seconds
        host.say(f"{name}: seed {seed}: {rate:,.0f} per second")
        return rate
    return run


def executions(name, folder):
    path, before = EXECUTIONS[name]
    with open(os.path.join(folder, path), encoding="utf-8", errors="replace") as file:
        found = re.search(f"^{before}([0-9]+)", file.read(), re.MULTILINE)
    if not found:
        raise host.Failed(f"{name} did not tell its executions")
    return int(found[1])


def row(name, rates):
    return {"name": name, "what": fuzzers.TITLES[name], "absent": None,
            "lines": [{"layer": name, "rates": rates, "median_rate": host.median(rates)}]}


def table(report):
    yield "| fuzzer | executions per second | slowest and fastest |"
    yield "|---|---|---|"
    for fuzzer in report["rows"]:
        line = fuzzer["lines"][0]
        yield (f"| {fuzzer['what']} | {line['median_rate']:,.0f} | "
               f"{min(line['rates']):,.0f} to {max(line['rates']):,.0f} |")
