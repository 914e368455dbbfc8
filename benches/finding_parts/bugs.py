"""Bugs: published ones in old releases of parsers, found anew; by dejavm alone.

Each is a small program around an old release of a crate. A crash counts if the same program
with the release that mends the bug survives the same input. Inputs are in a temporary folder only,
and are never printed: a report has names and times.
"""

import contextlib
import os
import struct
import subprocess
import time
import zlib

from . import fuzzers, host

NAME = "bugs"
TITLE = "Time to find a published bug"
HELP = ["published bugs in old releases of parsers, by dejavm alone: the time to the first find.",
        "5 minutes to build them, once, and at most 70 to find them: 7 bugs, 3 rounds, 200 s."]
OPTIONS = {"bug-limit": (200, "SECONDS", "longest time for a bug")}
# What a mended program gets to survive an input.
CHECK_S, CHECK_BYTES = 10, 1 << 30
RUST_PANIC_STATUS = 101
# A panic, and what makes it a crash.
PANIC = ["--crash-at", "rust_panic"]

MAIN = """\
fn parse(data: &[u8]) {{
    {parse}
}}

fn main() {{
    let path = std::env::args_os().nth(1).expect("usage: parse FILE");
    parse(&std::fs::read(path).expect("the file can be read"));
}}
"""
MANIFEST = """\
[package]
name = "{name}"
version = "0.0.0"
edition = "2021"

[dependencies]
{crate} = "={version}"

[profile.release]
debug = "line-tables-only"

[workspace]
"""


def seeds_of_simple_asn1():
    folder = os.path.join(host.ROOT, "tests/guests/asn1/seeds")
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            yield file.read()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def images():
    """The smallest image of some formats: 2 by 2 pixels."""
    yield (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
           + chunk(b"IDAT", zlib.compress(2 * (b"\0" + bytes(6)))) + chunk(b"IEND", b""))
    yield (b"BM" + struct.pack("<IHHI", 70, 0, 0, 54)
           + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 24, 0, 16, 0, 0, 0, 0) + bytes(16))
    # Softimage PIC: a packet of three channels, not compressed.
    yield (b"\x53\x80\xf6\x34" + bytes(84) + b"PICT" + struct.pack(">HHIHH", 2, 2, 0, 3, 0)
           + b"\0\x08\0\xe0" + bytes(12))


def dns_answer():
    """An answer with an address and a mail exchange, whose names point to the question's."""
    yield (struct.pack(">HHHHHH", 0x1234, 0x8180, 1, 2, 0, 0)
           + b"\x07example\x03com\0" + struct.pack(">HH", 1, 1)
           + struct.pack(">HHHIH", 0xc00c, 1, 1, 60, 4) + bytes([192, 0, 2, 1])
           + struct.pack(">HHHIHH", 0xc00c, 15, 1, 60, 9, 10) + b"\x04mail\xc0\x0c")


# The bug's names, the releases that have it and that mend it, a program's heart, seeds, and
# whether a panic is what it comes to.
BUGS = [
    {"crate": "simple_asn1", "advisory": "RUSTSEC-2021-0125", "version": "0.6.0", "mended": "0.6.1",
     "parse": "let _ = simple_asn1::from_der(data);",
     "seeds": seeds_of_simple_asn1, "options": PANIC},
    {"crate": "bcder", "advisory": "RUSTSEC-2023-0062", "version": "0.7.2", "mended": "0.7.3",
     "parse": """let _ = bcder::Mode::Ber.decode(data, |values| values.take_sequence(|values| {
        bcder::Oid::take_from(values)?;
        bcder::Utf8String::take_from(values)?;
        values.skip_all()
    }));""",
     "seeds": lambda: [bytes.fromhex("300a") + b"\x06\x03\x55\x04\x03\x0c\x03SAN"],
     "options": PANIC},
    {"crate": "asn1_der", "advisory": "RUSTSEC-2019-0007", "version": "0.6.1", "mended": "0.6.2",
     "parse": "let _ = asn1_der::DerObject::deserialize(data.iter());",
     "seeds": lambda: [b"\x30\x0a\x02\x01\x07\x04\x05hello"], "options": PANIC},
    {"crate": "rulex", "advisory": "RUSTSEC-2022-0031", "version": "0.3.0", "mended": "0.4.4",
     "parse": """let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = rulex::Rulex::parse_and_compile(text, Default::default());""",
     "parse_mended": """let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = rulex::Rulex::parse_and_compile(text, Default::default(), Default::default());""",
     "seeds": lambda: [b"'a'+ ['b'-'d' ! 'x']? :name('x' | range '0'-'255') ::name >> 'y'\n"],
     "options": PANIC},
    {"crate": "trust-dns-proto", "advisory": "RUSTSEC-2018-0007", "version": "0.4.2",
     "mended": "0.4.3", "parse": """use trust_dns_proto::serialize::binary::*;
    let _ = trust_dns_proto::op::Message::read(&mut BinDecoder::new(data));""",
     # Eight megabytes of stack take longer than what is usual for so short a program.
     "seeds": dns_answer, "options": ["-t", "1000"]},
    {"crate": "cookie", "advisory": "RUSTSEC-2017-0005", "version": "0.6.1", "mended": "0.6.2",
     "parse": """let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = cookie::Cookie::parse(text);""",
     "seeds": lambda: [b"name=value; Path=/docs; Max-Age=3600; Secure"], "options": PANIC},
    {"crate": "stb_image", "advisory": "RUSTSEC-2023-0021 (C)", "version": "0.2.4",
     "mended": "0.2.5", "parse": "let _ = stb_image::image::load_from_memory(data);",
     "seeds": images, "options": []},
]


def measure(options):
    host.need("cargo")
    names = host.wanted([bug["crate"] for bug in BUGS], options)
    bugs = [bug for bug in BUGS if bug["crate"] in names]
    with host.scratch() as folder:
        jobs = []
        for bug in bugs:
            programs = {"old": build(bug["crate"], bug["version"], bug["parse"]),
                        "mended": build(bug["crate"], bug["mended"],
                                        bug.get("parse_mended", bug["parse"]))}
            seeds = os.path.join(folder, bug["crate"])
            os.mkdir(seeds)
            for number, seed in enumerate(bug["seeds"]()):
                with open(os.path.join(seeds, str(number)), "wb") as file:
                    file.write(seed)
            jobs += [job(options, bug, programs, seeds, seed)
                     for seed in range(1, options.rounds + 1)]
        times = iter(host.in_turn(jobs, options.cpus))
        return [row(bug, [next(times) for _ in range(options.rounds)], options.bug_limit)
                for bug in bugs]


def build(crate, version, parse):
    """The program around a release: what it needs is fetched, and then built offline."""
    name = f"{crate}-{version}".replace(".", "-")
    folder, target = host.kept("bugs", name), host.kept("bugs", "target")
    os.makedirs(os.path.join(folder, "src"), exist_ok=True)
    for path, text in (("Cargo.toml", MANIFEST.format(name=name, crate=crate, version=version)),
                       ("src/main.rs", MAIN.format(parse=parse))):
        with open(os.path.join(folder, path), "w", encoding="utf-8") as file:
            file.write(text)
    # Old releases ask for whatever is newest of others: take what the toolchain can build.
    environment = {**os.environ, "CARGO_TARGET_DIR": target,
                   "CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS": "fallback"}
    started = time.monotonic()
    host.call(["cargo", "fetch"], cwd=folder, env=environment)
    host.call(["cargo", "build", "--release", "--offline"], cwd=folder, env=environment)
    host.say(f"{crate} {version}: built in {time.monotonic() - started:.0f} s")
    return os.path.join(target, "release", name)


def job(options, bug, programs, seeds, seed):
    def run(cpu):
        with host.scratch() as folder:
            words, crashes = fuzzers.command(
                fuzzers.DEJAVM, options, [programs["old"], "@@"], seeds,
                os.path.join(folder, "out"), seed, bug["options"])
            seconds = first_find(words, crashes, programs["mended"], cpu,
                                 os.path.join(folder, "log"), options.bug_limit)
        found = "not found" if seconds is None else f"{seconds:.2f} s"
        host.say(f"{bug['crate']}: seed {seed}: {found}")
        return seconds
    return run


def first_find(words, crashes, mended, cpu, log, limit_s):
    """Seconds until there is a crash that the mended program survives, or None."""
    seen = set()
    with fuzzers.Campaign(words, cpu, log) as campaign:
        while campaign.seconds() < limit_s:
            host.go_on()
            ended, seconds = campaign.ended(), campaign.seconds()
            for name in sorted(new_crashes(crashes) - seen):
                seen.add(name)
                if survives(mended, os.path.join(crashes, name)):
                    return seconds
            if ended:
                raise host.Failed(f"dejavm ended after {seconds:.1f} s")
            time.sleep(fuzzers.POLL_S)
    return None


def new_crashes(folder):
    with contextlib.suppress(FileNotFoundError):
        return {name for name in os.listdir(folder) if name.startswith("id:")}
    return set()


def survives(program, path):
    try:
        done = subprocess.run(["prlimit", "--core=0", f"--as={CHECK_BYTES}", program, path],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, cwd=os.path.dirname(path),
                              timeout=CHECK_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode >= 0 and done.returncode != RUST_PANIC_STATUS


def row(bug, seconds, limit_s):
    return {"name": bug["crate"], "what": f"{bug['crate']} {bug['version']}", "absent": None,
            "limit_s": limit_s, "advisory": bug["advisory"], "mended": bug["mended"],
            "lines": [host.times(fuzzers.DEJAVM, seconds)]}


def table(report):
    yield "| bug | release | mended in | found after | shortest and longest |"
    yield "|---|---|---|---|---|"
    for bug in report["rows"]:
        line = bug["lines"][0]
        found = [one for one in line["seconds"] if one is not None]
        span = f"{min(found):.3g} s to {max(found):.3g} s" if found else ""
        yield (f"| {bug['advisory']} | {bug['what']} | {bug['mended']} | "
               f"{host.time_or_never(line, bug['limit_s'])} | {span} |")
