"""Builds for AFL++ of what Debian's packages were built from: fetched by apt-get, statically linked.

Never touches what is installed.
"""

import glob
import os
import shutil

from . import fuzzers, host

# Files that autotools would make anew, because Debian's patches changed what they are made of.
NO_AUTOTOOLS = "ACLOCAL=: AUTOMAKE=: AUTOCONF=: AUTOHEADER=:"
# By package: how its source becomes a program, and where that is.
RECIPES = {
    "libxml2-utils": (f"./configure --disable-shared --without-python && make xmllint {NO_AUTOTOOLS}",
                      "xmllint"),
    "libjpeg-turbo-progs": ("cmake -S . -B afl -DENABLE_SHARED=0 -DWITH_SIMD=0 "
                            "-DCMAKE_BUILD_TYPE=None && make -C afl djpeg-static",
                            "afl/djpeg-static"),
    "libtiff-tools": ("cmake -S . -B afl -DBUILD_SHARED_LIBS=OFF -DCMAKE_BUILD_TYPE=None "
                      "-Dtiff-tests=OFF -Dtiff-docs=OFF && make -C afl tiffinfo",
                      "afl/tools/tiffinfo"),
    "file": ("./configure --disable-shared --disable-libseccomp && make -C src", "src/file"),
}


def source_of(package):
    """The source package, and its version, that an installed package was built from."""
    said = host.call(["dpkg-query", "-W", "-f", "${source:Package} ${source:Version}", package])
    return said.split()


def archives_of_sources():
    """The archives of packages that this machine uses, as archives of their sources."""
    lines = []
    for path in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*.list")]:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                lines += [line.replace("deb ", "deb-src ", 1) for line in file if line.startswith("deb ")]
    for path in glob.glob("/etc/apt/sources.list.d/*.sources"):
        with open(path, encoding="utf-8") as file:
            stanzas = file.read().split("\n\n")
        for stanza in stanzas:
            fields = dict(line.split(":", 1) for line in stanza.splitlines()
                          if ":" in line and line[0] not in " \t#")
            if "deb" not in fields.get("Types", "").split():
                continue
            lines += [f"deb-src {uri} {suite} {fields.get('Components', '').strip()}\n"
                      for uri in fields.get("URIs", "").split()
                      for suite in fields.get("Suites", "").split()]
    return "".join(lines)


def fetch(package, folder):
    """Unpacks the source of an installed package into a new folder inside `folder`."""
    name, version = source_of(package)
    lists = os.path.join(folder, "lists")
    os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
    archives = os.path.join(folder, "sources.list")
    with open(archives, "w", encoding="utf-8") as file:
        file.write(archives_of_sources())
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={archives}", "-o",
           "Dir::Etc::sourceparts=/dev/null", "-o", f"Dir::State::lists={lists}",
           "-o", "APT::Sandbox::User=root"]
    host.call([*apt, "update"], cwd=folder)
    host.call([*apt, "source", f"{name}={version}"], cwd=folder)
    trees = [path for path in glob.glob(os.path.join(folder, f"{name}-*")) if os.path.isdir(path)]
    if len(trees) != 1:
        raise host.Failed(f"the source of {name} {version} is not one folder")
    return trees[0]


def build(package, fuzzer):
    """The program of an installed package as AFL++ wants it; built once, and kept."""
    steps, program = RECIPES[package]
    version = source_of(package)[1].replace(":", "-")
    done = host.kept("builds", fuzzer, f"{package}-{version}")
    path = os.path.join(done, os.path.basename(program))
    if os.path.exists(path):
        return path
    host.say(f"{package}: building for {fuzzer}")
    environment = {**fuzzers.build_environment(fuzzer), "CC": "afl-clang-fast",
                   "CXX": "afl-clang-fast++", "CFLAGS": "-g -O2", "CXXFLAGS": "-g -O2"}
    with host.scratch() as folder:
        tree = fetch(package, folder)
        host.call(["sh", "-ec", steps], cwd=tree, env=environment)
        shutil.copy2(os.path.join(tree, program), path + ".new")
    os.replace(path + ".new", path)
    return path
