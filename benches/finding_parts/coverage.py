"""Coverage: what the queues of dejavm and AFL++ reach in Debian's own programs."""

import os
import subprocess

from . import blocks, builds, fuzzers, host

NAME = "coverage"
TITLE = "Blocks that the final queues reach, told by qemu-user"
HELP = ["what the queues reach in Debian's own xmllint, djpeg, readelf, tiffinfo and file, as",
        "qemu-user tells it. 6.5 hours of fuzzing: 10 minutes each for dejavm and, but for",
        "readelf, AFL++ with and without CMPLOG, 3 rounds. Then 5 to 10 inputs a second are",
        "measured, 1 to 2 hours in all. Before it the builds for AFL++, once: 5 to 15 minutes."]
OPTIONS = {"minutes": (10.0, "N", "how long each fuzzer runs")}
FUZZERS = [fuzzers.DEJAVM, fuzzers.AFL, fuzzers.CMPLOG]
SEEDS = "seeds"

XML = """<?xml version="1.0"?>
<!DOCTYPE list [<!ELEMENT list (item*)> <!ELEMENT item (#PCDATA)> <!ATTLIST item id ID #IMPLIED>
<!ENTITY e "an entity">]>
<list xmlns:x="urn:x"><!-- a comment --><item id="a">&e; &#65;</item><x:y z="1"/><![CDATA[<]]></list>
"""
C = """int number = 7; static const char *const words[] = {"one", "two"};
const char *word(int at) { return words[at & 1]; }
int main(void) { return word(number)[0] == 'o'; }
"""


def ppm(folder):
    path = os.path.join(folder, "small.ppm")
    with open(path, "wb") as file:
        file.write(b"P6\n24 16\n255\n" + bytes(at * 7 % 256 for at in range(24 * 16 * 3)))
    return path


def made(folder, name, command):
    """A seed that a command writes to its standard output, or to `@@`."""
    path = os.path.join(folder, name)
    with open(path if "@@" not in command else os.devnull, "wb") as file:
        subprocess.run([path if word == "@@" else word for word in command], stdout=file,
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def xml_seeds(folder, _):
    with open(os.path.join(folder, "list.xml"), "w", encoding="utf-8") as file:
        file.write(XML)
    plain = os.path.join(folder, "list.xml")
    made(folder, "utf16.xml", ["xmllint", "--encode", "UTF-16", plain])
    made(folder, "canonical.xml", ["xmllint", "--c14n", plain])


def jpeg_seeds(folder, scratch):
    for options in (["-baseline"], ["-progressive"], ["-grayscale", "-restart", "1"],
                    ["-arithmetic"]):
        made(folder, options[0][1:] + ".jpg", ["cjpeg", *options, ppm(scratch)])


def elf_seeds(folder, scratch):
    source = os.path.join(scratch, "small.c")
    with open(source, "w", encoding="utf-8") as file:
        file.write(C)
    made(folder, "object", ["gcc", "-c", "-g1", "-o", "@@", source])
    made(folder, "stripped", ["gcc", "-c", "-s", "-O2", "-fPIC", "-o", "@@", source])


def tiff_seeds(folder, scratch):
    for kind in ("none", "lzw", "zip", "packbits"):
        made(folder, kind + ".tif", ["ppm2tiff", "-c", kind, ppm(scratch), "@@"])


def mixed_seeds(folder, scratch):
    for seeds in (jpeg_seeds, elf_seeds, tiff_seeds, xml_seeds):
        seeds(folder, scratch)


MAGIC = ["-m", "/usr/lib/file/magic.mgc"]
# A program, its package, its arguments, the libraries that parse for it, and its seeds.
PROGRAMS = {
    "xmllint": ("libxml2-utils", ["--noout", "@@"], ["libxml2"], xml_seeds),
    "djpeg": ("libjpeg-turbo-progs", ["@@"], ["libjpeg"], jpeg_seeds),
    "readelf": ("binutils", ["-a", "@@"], [], elf_seeds),
    "tiffinfo": ("libtiff-tools", ["-D", "@@"], ["libtiff"], tiff_seeds),
    "file": ("file", [*MAGIC, "@@"], ["libmagic"], mixed_seeds),
}


def measure(options):
    host.need("qemu-x86_64", "gcc", *PROGRAMS, "cjpeg", "ppm2tiff")
    names = host.wanted_fuzzers(FUZZERS, options)
    for name in names:
        host.need(*fuzzers.tools(name))
    with host.scratch() as folder:
        jobs, rows = [], []
        for program in host.wanted(PROGRAMS, options):
            seeds = os.path.join(folder, program)
            os.mkdir(seeds)
            PROGRAMS[program][3](seeds, folder)
            there = [name for name in names
                     if name == fuzzers.DEJAVM or PROGRAMS[program][0] in builds.RECIPES]
            rows.append((program, there))
            jobs.append(of_seeds(program, seeds, folder))
            for name in there:
                words = words_for(program, name)
                jobs += [job(options, program, name, words, seeds, folder, seed)
                         for seed in range(1, options.rounds + 1)]
        reached = iter(host.in_turn(jobs, options.cpus))
        return [row(program, next(reached), {name: [next(reached) for _ in range(options.rounds)]
                                             for name in there}) for program, there in rows]


def words_for(program, fuzzer):
    """The command that a fuzzer runs: Debian's own program, or what was built for AFL++."""
    package, arguments, _, _ = PROGRAMS[program]
    if fuzzer == fuzzers.DEJAVM:
        return debian(program)
    return [builds.build(package, fuzzer), *arguments]


def debian(program):
    return [os.path.join("/usr/bin", program), *PROGRAMS[program][1]]


def reached_by(program, folder, scratch, name, cpu):
    """How many blocks of Debian's program a folder of inputs reaches, and of how many inputs."""
    ranges = blocks.wanted_ranges(debian(program)[0], PROGRAMS[program][2])
    log = os.path.join(scratch, f"{name}.qemu")
    reached, files = blocks.of_folder(debian(program), folder, ranges, log, cpu)
    if not reached:
        raise host.Failed(f"{program}: qemu-user told of no block")
    host.say(f"{program}: {name}: {len(reached)} blocks, {files} inputs")
    return len(reached), files


def of_seeds(program, seeds, scratch):
    return lambda cpu: reached_by(program, seeds, scratch, f"{program}-{SEEDS}", cpu)


def job(options, program, name, words, seeds, scratch, seed):
    def run(cpu):
        label = f"{program}-{name}-{seed}"
        folder = os.path.join(scratch, label)
        os.mkdir(folder)
        cover = [word for library in PROGRAMS[program][2] for word in ("--cover", library)]
        command, crashes = fuzzers.command(name, options, words, seeds,
                                           os.path.join(folder, "out"), seed, cover)
        with fuzzers.Campaign(command, cpu, os.path.join(folder, "log")) as campaign:
            if not campaign.wait(options.minutes * 60):
                # The hours of the others are not to be lost.
                host.say(f"{label} ended by itself:\n{campaign.said()[-1000:]}")
                return None
        return reached_by(program, os.path.join(os.path.dirname(crashes), "queue"), scratch,
                          label, cpu)
    return run


def row(program, seeds, reached):
    return {"name": program, "what": program, "absent": None,
            "lines": [line(name, there) for name, there in {SEEDS: [seeds], **reached}.items()
                      if any(there)]}


def line(name, reached):
    """What the rounds came to, but for those that ended too soon."""
    reached = [one for one in reached if one]
    return {"layer": name, "blocks": [count for count, _ in reached],
            "median_blocks": host.median([count for count, _ in reached]),
            "median_inputs": host.median([files for _, files in reached])}


def table(report):
    names = [SEEDS] + [name for name in FUZZERS
                       if any(name == one["layer"] for program in report["rows"]
                              for one in program["lines"])]
    titles = {**fuzzers.TITLES, SEEDS: "the seeds"}
    yield "| program | " + " | ".join(titles[name] for name in names) + " |"
    yield "|---|" + "---|" * len(names)
    for program in report["rows"]:
        lines = {one["layer"]: one for one in program["lines"]}
        cells = [cell(lines.get(name)) for name in names]
        yield f"| {program['what']} | " + " | ".join(cells) + " |"
    yield ""
    yield "Blocks, and in brackets inputs in the queue; - where nothing was built, or ran to its end."


def cell(one):
    return f"{one['median_blocks']:,} ({one['median_inputs']:,})" if one else "-"
