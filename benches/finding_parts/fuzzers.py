"""Fuzzers: how each is built, started, watched and stopped.

Each gets one CPU, the same seeds, and the same longest input. A fuzzer's own words are never
printed where the program is not ours: libFuzzer prints what it found.
"""

import contextlib
import os
import signal
import subprocess
import time

from . import host

DEJAVM, AFL, CMPLOG, LIBFUZZER = "dejavm", "afl", "afl-cmplog", "libfuzzer"
TITLES = {DEJAVM: "dejavm, unmodified program", AFL: "AFL++", CMPLOG: "AFL++ with CMPLOG",
          LIBFUZZER: "libFuzzer"}
# Debian's, as dpkg-buildflags tells them, without its paths.
DEBIAN_FLAGS = ["-g", "-O2", "-fstack-protector-strong", "-Wformat", "-Werror=format-security",
                "-Wdate-time", "-D_FORTIFY_SOURCE=2", "-fPIE", "-pie", "-Wl,-z,relro"]
TARGET_FLAGS = ["-g", "-O2", "-DLIBFUZZER", "-fsanitize=fuzzer"]
INPUT_BYTES_MAX = 4096
# What AFL++ would otherwise stop for, or do with the screen and the CPUs.
AFL_ENVIRONMENT = {"AFL_NO_UI": "1", "AFL_SKIP_CPUFREQ": "1", "AFL_NO_AFFINITY": "1",
                   "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES": "1", "AFL_QUIET": "1"}
POLL_S, STOP_S = 0.005, 10


def tools(name):
    """The commands that a fuzzer needs."""
    return {DEJAVM: ["gcc"], AFL: ["afl-fuzz", "afl-clang-fast"],
            CMPLOG: ["afl-fuzz", "afl-clang-fast"], LIBFUZZER: ["clang"]}[name]


def compile_for(name, source, program, flags):
    """Compiles a source of ours for a fuzzer: an ordinary program for dejavm, else a target with
    the function that libFuzzer calls, which AFL++ calls in its persistent mode."""
    compilers = {DEJAVM: ["gcc", *DEBIAN_FLAGS], AFL: ["afl-clang-fast", *TARGET_FLAGS],
                 CMPLOG: ["afl-clang-fast", *TARGET_FLAGS], LIBFUZZER: ["clang", *TARGET_FLAGS]}
    host.call([*compilers[name], *flags, "-o", program, source, "-lm"], env=build_environment(name))


def build_environment(name):
    """The environment in which afl-clang-fast builds for a fuzzer."""
    cmplog = {"AFL_LLVM_CMPLOG": "1"} if name == CMPLOG else {}
    return {**os.environ, "AFL_QUIET": "1", **cmplog}


def command(name, options, program, seeds, out, seed, more=()):
    """The command of a campaign, and the folder in which it keeps crashes.

    `program` is a list: what is run, and `@@` where its input's path goes. `more` are options of
    dejavm's own."""
    if name == DEJAVM:
        return [options.dejavm, "fuzz", "-i", seeds, "-o", out, "-s", str(seed), "--max-len",
                str(INPUT_BYTES_MAX), *more, "--", *program], os.path.join(out, "crashes")
    if name in (AFL, CMPLOG):
        # With a second program for -c, Debian's 4.04c solves nothing; with the same one, 0, it does.
        logged = ["-c", "0"] if name == CMPLOG else []
        return ["afl-fuzz", "-i", seeds, "-o", out, "-s", str(seed), "-G", str(INPUT_BYTES_MAX),
                *logged, "--", *program], os.path.join(out, "default", "crashes")
    crashes, corpus = os.path.join(out, "crashes"), os.path.join(out, "corpus")
    for folder in (crashes, corpus):
        os.makedirs(folder)
    return [*program, f"-seed={seed}", f"-max_len={INPUT_BYTES_MAX}", "-print_final_stats=1",
            f"-artifact_prefix={crashes}/", corpus, seeds], crashes


def stat_of(pid):
    """The fields of a process's state behind its name, or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_of(pid):
    """When a process started: with its number, a name that no other process gets."""
    fields = stat_of(pid)
    return fields and fields[19]


def descendants(pid):
    """The processes that a process has started, and those that they have: number and start."""
    parents = {int(name): stat_of(name) for name in os.listdir("/proc") if name.isdigit()}
    found, new = {}, {pid}
    while new:
        new = {child for child, fields in parents.items()
               if fields and int(fields[1]) in new and child not in found}
        found.update((child, parents[child][19]) for child in new)
    return found


class Campaign:
    """A fuzzer that runs, on one CPU, until it is stopped or the block ends."""

    def __init__(self, words, cpu, log):
        self.log = log
        self.started = time.monotonic()
        with open(log, "wb") as file:
            try:
                self.process = subprocess.Popen(
                    ["taskset", "-c", str(cpu), *words], stdin=subprocess.DEVNULL, stdout=file,
                    stderr=subprocess.STDOUT, env={**os.environ, **AFL_ENVIRONMENT},
                    start_new_session=True, cwd=os.path.dirname(log))
            except OSError as error:
                raise host.Failed(f"{words[0]}: {error.strerror}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def seconds(self):
        return time.monotonic() - self.started

    def ended(self):
        return self.process.poll() is not None

    def wait(self, seconds):
        """Lets it run for so long, by this clock; False if it ended of itself before."""
        while self.seconds() < seconds:
            host.go_on()
            if self.ended():
                return False
            time.sleep(0.05)
        return True

    def stop(self):
        """Stops it as Ctrl-C does, so that it writes its figures, and with force if need be."""
        began = descendants(self.process.pid)
        for sign in (signal.SIGINT, signal.SIGKILL):
            if self.ended():
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        # AFL++ leaves fork servers behind, in sessions of their own.
        for pid, start in began.items():
            if start_of(pid) == start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()


def has_crash(folder):
    with contextlib.suppress(FileNotFoundError):
        return any(name != "README.txt" and not name.startswith(".")
                   for name in os.listdir(folder))
    return False


def first_crash(name, words, crashes, cpu, log, limit_s):
    """Seconds from a fuzzer's start until it has a crash, or None if it has none in time.

    A libFuzzer that dies of what it found, as it does of a stack without an end, has found it."""
    with Campaign(words, cpu, log) as campaign:
        while campaign.seconds() < limit_s:
            host.go_on()
            ended = campaign.ended()
            seconds = campaign.seconds()
            if has_crash(crashes):
                return seconds
            if ended:
                if name == LIBFUZZER and campaign.process.returncode != 0:
                    return seconds
                raise host.Failed(f"{name} ended after {seconds:.1f} s without a crash:\n"
                                  + campaign.said()[-2000:])
            time.sleep(POLL_S)
    return None
