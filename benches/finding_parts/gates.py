"""Gates: the time to a crash of our own behind each gate of tests/guests/c/gates.c."""

import os

from . import fuzzers, host

NAME = "gates"
TITLE = "Time to the first crash behind a gate"
HELP = ["eight gates of tests/guests/c/gates.c: the time to the first crash. About an hour, at most",
        "2.4: 8 gates, 4 fuzzers, 3 rounds, 90 s where nothing is found."]
OPTIONS = {"limit": (90, "SECONDS", "longest time for a gate")}
SOURCE = os.path.join(host.ROOT, "tests/guests/c/gates.c")
GATES = ["4 bytes at once", "8 bytes at once", "strcmp", "memcmp of 16 bytes",
         "three keywords in a row", "CRC32 of the rest", "length and big-endian sum",
         "recursion, 2,000 deep"]
FUZZERS = [fuzzers.DEJAVM, fuzzers.AFL, fuzzers.CMPLOG, fuzzers.LIBFUZZER]
SEED = b"a seed of no use to any gate (but for these), of 64 bytes......\n"


def measure(options):
    names = host.wanted_fuzzers(FUZZERS, options)
    for name in names:
        host.need(*fuzzers.tools(name))
    left = host.wanted(GATES, options)
    gates = [(number, gate) for number, gate in enumerate(GATES, 1) if gate in left]
    with host.scratch() as folder:
        seeds = os.path.join(folder, "seeds")
        os.mkdir(seeds)
        with open(os.path.join(seeds, "seed"), "wb") as file:
            file.write(SEED)
        jobs = []
        for number, gate in gates:
            for name in names:
                program = os.path.join(folder, f"gate{number}-{name}")
                fuzzers.compile_for(name, SOURCE, program, [f"-DGATE={number}"])
                for seed in range(1, options.rounds + 1):
                    jobs.append(job(options, gate, name, program, seeds, seed))
        times = iter(host.in_turn(jobs, options.cpus))
        return [row(gate, {name: [next(times) for _ in range(options.rounds)] for name in names},
                    options.limit) for _, gate in gates]


def job(options, gate, name, program, seeds, seed):
    def run(cpu):
        out = f"{program}-{seed}"
        os.mkdir(out)
        path = ["@@"] if name == fuzzers.DEJAVM else []
        words, crashes = fuzzers.command(
            name, options, [program, *path], seeds, os.path.join(out, "out"), seed)
        seconds = fuzzers.first_crash(
            name, words, crashes, cpu, os.path.join(out, "log"), options.limit)
        found = "not found" if seconds is None else f"{seconds:.2f} s"
        host.say(f"{gate}: {name}, seed {seed}: {found}")
        return seconds
    return run


def row(gate, times, limit_s):
    return {"name": gate, "what": gate, "absent": None, "limit_s": limit_s,
            "lines": [host.times(name, seconds) for name, seconds in times.items()]}


def table(report):
    names = [line["layer"] for line in report["rows"][0]["lines"]]
    yield "| gate | " + " | ".join(fuzzers.TITLES[name] for name in names) + " |"
    yield "|---|" + "---|" * len(names)
    for gate in report["rows"]:
        cells = [host.time_or_never(line, gate["limit_s"]) for line in gate["lines"]]
        yield f"| {gate['what']} | " + " | ".join(cells) + " |"
