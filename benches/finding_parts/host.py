"""The host: what is installed, which CPUs are used, which versions are compared.

Never measures anything itself.
"""

import concurrent.futures
import contextlib
import datetime
import json
import os
import platform
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGES = ["afl++", "clang", "llvm", "gcc", "libc6-dev",
            # To measure coverage: what tells it, the programs, and what they are built from.
            "qemu-user", "libxml2-utils", "libjpeg-turbo-progs", "binutils", "libtiff-tools", "file",
            "dpkg-dev", "make", "cmake", "zlib1g-dev", "liblzma-dev", "libjpeg62-turbo-dev",
            "libicu-dev"]
COMPARED = ["afl++", "clang-14", "gcc-12", "qemu-user"]


# Set when everything is to end: whatever waits looks at it.
stopping = threading.Event()


class Failed(Exception):
    """What the host or a tool failed at, in words for the user."""


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def cpu_list(text):
    cpus = [int(cpu) for cpu in text.split(",")]
    if not set(cpus) <= os.sched_getaffinity(0) or len(set(cpus)) != len(cpus):
        raise ValueError(text)
    return cpus


def built_dejavm():
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "release", "dejavm")


def install():
    """Installs what is compared with, and what it takes to build and to measure."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in (["apt-get", "update", "-q"],
                    ["apt-get", "install", "-q", "-y", "--no-install-recommends", *PACKAGES]):
        subprocess.run(command, env=environment, check=True)


def need(*commands):
    """Fails unless these commands are there."""
    for command in commands:
        if not shutil.which(command):
            raise Failed(f"{command} is missing: benches/finding --install")


def call(command, **more):
    """What a command prints; fails, with the end of what it said, if the command does."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False, **more)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from error
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        words = " ".join(command)
        raise Failed(f"{words}: status {done.returncode}\n{said[-2000:]}")
    return said


def package_version(package):
    """The version of an installed package of Debian's, or None."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode() or None


def go_on():
    """Ends a job that is to stop."""
    if stopping.is_set():
        raise Failed("stopped")


@contextlib.contextmanager
def scratch():
    """A folder for campaigns, which is gone afterwards with all that they found."""
    with tempfile.TemporaryDirectory(prefix="finding-", ignore_cleanup_errors=True) as folder:
        yield folder


def kept(*names):
    """A folder of the target folder, made if it is missing: for builds, never for findings."""
    path = os.path.join(os.path.dirname(os.path.dirname(built_dejavm())), "finding", *names)
    os.makedirs(path, exist_ok=True)
    return path


def in_turn(jobs, cpus):
    """Carries out jobs, functions of a CPU, one at a time on each CPU; their results, in order.

    After a failure, or Ctrl-C, no further job begins, and those under way are told to stop."""
    free = queue.Queue()
    for cpu in cpus:
        free.put(cpu)

    def one(job):
        cpu = free.get()
        try:
            return job(cpu)
        finally:
            free.put(cpu)

    with concurrent.futures.ThreadPoolExecutor(len(cpus)) as pool:
        waiting = [pool.submit(one, job) for job in jobs]
        try:
            return [job.result() for job in waiting]
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def median(values):
    """The median of counts or rates; the lower one of two."""
    return statistics.median_low(values)


def median_time(seconds):
    """The median of times, the longer one of two; None is "never", and longer than any."""
    middle = statistics.median_high([float("inf") if one is None else one for one in seconds])
    return None if middle == float("inf") else middle


def times(name, seconds):
    """What several rounds of a fuzzer came to: seconds to a find, or None where there was none."""
    return {"layer": name, "seconds": seconds, "median_s": median_time(seconds),
            "found": sum(one is not None for one in seconds)}


def time_or_never(line, limit_s):
    """A median, and how many rounds it is of where some found nothing."""
    rounds = len(line["seconds"])
    few = f" ({line['found']} of {rounds})" if 0 < line["found"] < rounds else ""
    if line["median_s"] is None:
        return f"not in {limit_s} s{few}"
    return f"{line['median_s']:.3g} s{few}"


def wanted(names, options):
    """Those of the names that --only leaves; fails if it leaves none."""
    left = [name for name in names
            if not options.only or any(text in name for text in options.only)]
    if not left:
        raise Failed(f"--only leaves nothing of {', '.join(names)}")
    return left


def wanted_fuzzers(names, options):
    """Those of the fuzzers that --fuzzer leaves; fails if it leaves none."""
    left = [name for name in names if not options.fuzzer or name in options.fuzzer]
    if not left:
        raise Failed(f"--fuzzer leaves none of {', '.join(names)}")
    return left


def say(words):
    """Progress, for whoever waits."""
    now = datetime.datetime.now().strftime("%H:%M:%S")
    print(f"{now} {words}", file=sys.stderr, flush=True)


def about(options):
    """The host as `dejavm bench` tells of it, and the load before anything is measured."""
    with scratch() as folder:
        path = os.path.join(folder, "boot.json")
        call([options.dejavm, "bench", "boot", "--only", "none", "--json", path])
        with open(path, encoding="utf-8") as file:
            told = json.load(file)["host"]
    keys = ("cpu", "cpus", "kvm", "kernel", "engine", "build")
    return {**{key: told.get(key) for key in keys}, "load": os.getloadavg()[0]}


def versions():
    """The distribution and what was compared, each with its version."""
    told = [platform.freedesktop_os_release().get("PRETTY_NAME")]
    for package in COMPARED:
        version = package_version(package)
        told.append(version and f"{package} {version}")
    return [version for version in told if version]


def commit():
    """The commit that is checked out, and whether anything but the page has changed since."""
    git = ["git", "-C", ROOT]
    head = call([*git, "rev-parse", "--short", "HEAD"]).strip()
    changed = call([*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"])
    return f"{head} and changes" if changed else head


def report(part, options):
    """Measures a part, and says on what."""
    if not os.access(options.dejavm, os.X_OK):
        raise Failed(f"{options.dejavm} is missing: cargo build --release --workspace")
    options.dejavm = os.path.abspath(options.dejavm)
    told = about(options)
    rows = part.measure(options)
    return {
        "bench": f"finding-{part.NAME}",
        "host": told,
        "versions": versions(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": command(options, part),
        "rounds": options.rounds,
        "at_a_time": len(options.cpus),
        "rows": rows,
    }


def command(options, part):
    """The command that measures the part so."""
    words = ["benches/finding", part.NAME]
    defaults = {"rounds": 3, **{name: default for name, (default, *_) in part.OPTIONS.items()}}
    for name, default in defaults.items():
        value = getattr(options, name.replace("-", "_"))
        if value != default:
            words += [f"--{name}", f"{value:g}"]
    if options.cpus != [0]:
        words += ["--cpus", ",".join(map(str, options.cpus))]
    for name in ("only", "fuzzer"):
        for value in getattr(options, name):
            words += [f"--{name}", value]
    return " ".join(words)
