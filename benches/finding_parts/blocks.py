"""Blocks: what a program executes, told by a third party, qemu-user.

`qemu-x86_64 -d in_asm` writes down each block that it translates, when it is first executed. It maps
a program and its libraries at the same addresses each time.
"""

import os
import re
import subprocess

from . import host

PROGRAM_AT = 0x4000000000
# A block's first instruction; behind IN: there may be a symbol.
BLOCK = re.compile(rb"^IN:[^\n]*\n0x([0-9a-f]+)", re.MULTILINE)
LIBRARY = re.compile(r"^\s*(\S+)(?: => \S+)? \((0x[0-9a-f]+)\)$", re.MULTILINE)
RUN_S, LOG_BYTES_MAX = 30, 1 << 28


def images(program):
    """Where a program and its libraries begin, in order: address and name."""
    said = host.call(["qemu-x86_64", "-E", "LD_TRACE_LOADED_OBJECTS=1", program])
    loaded = [(int(at, 16), name) for name, at in LIBRARY.findall(said)]
    return sorted([(PROGRAM_AT, program), *loaded])


def wanted_ranges(program, libraries):
    """The addresses of a program and of those of its libraries whose names begin so."""
    found, begins = [], images(program)
    for (begin, name), (end, _) in zip(begins, [*begins[1:], (1 << 47, "")]):
        if name == program or any(os.path.basename(name).startswith(library)
                                  for library in libraries):
            found.append(range(begin, end))
    if len(found) != 1 + len(libraries):
        raise host.Failed(f"{program} has no such libraries as {', '.join(libraries)}")
    return found


def of_run(words, ranges, log, cpu):
    """The blocks in these ranges that a command executes. However it ends, and whatever it
    prints: only a run that takes too long has none."""
    limited = ["taskset", "-c", str(cpu), "prlimit", "--core=0", f"--fsize={LOG_BYTES_MAX}"]
    try:
        subprocess.run([*limited, "qemu-x86_64", "-d", "in_asm", "-D", log, *words], check=False,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=RUN_S, cwd=os.path.dirname(log))
    except subprocess.TimeoutExpired:
        return set()
    with open(log, "rb") as file:
        blocks = {int(at, 16) for at in BLOCK.findall(file.read())}
    return {at for at in blocks if any(at in one for one in ranges)}


def of_folder(words, folder, ranges, log, cpu):
    """The blocks that a command executes with any of a folder's files in place of `@@`, and how
    many files there are."""
    names = sorted(name for name in os.listdir(folder)
                   if os.path.isfile(os.path.join(folder, name)) and not name.startswith("."))
    reached = set()
    for name in names:
        host.go_on()
        path = os.path.join(folder, name)
        reached |= of_run([path if word == "@@" else word for word in words], ranges, log, cpu)
    return reached, len(names)
