#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds every #include against the module graph in cachalot/*/CMakeLists.txt.

A module may include itself and what its DEPS reach; the graph has no cycles; *-inl.h and
*_internal.h stay inside their module; each third-party library is included only where
docs/dependencies.md puts it. Prints one line a violation and exits 1.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "cachalot"

# Include prefix -> modules that may use it. The rest of the tree reaches it through their headers.
# nlohmann is also allowed in any .cc: what must not spread is its header into other headers.
LIBRARIES = {
    "hwy/": {"kernels", "numeric"},
    "hwloc": {"threading"},
    "pcre2": {"tokenizer"},
    "nlohmann/": {"base"},
    "CLI/": {"cli"},
    "boost/": {"http"},
    "openssl/": {"http"},
    "toml++/": {"train"},
    "xxhash.h": {"io"},
    "liburing.h": {"io"},
    "sqlite3.h": {"diskcache"},
    "histedit.h": {"cli"},
    "editline/": {"cli"},
    "benchmark/": {"kernels", "engine", "train"},
}


def read_graph() -> dict[str, set[str]]:
    """Module -> direct dependencies, from cachalot_module(name DEPS ... LIBS ...)."""
    graph = {}
    for cmake in sorted(SOURCES.glob("*/CMakeLists.txt")):
        match = re.search(r"cachalot_module\((\w+)([^)]*)\)", cmake.read_text())
        if match is None:
            sys.exit(f"{cmake}: no cachalot_module()")
        deps = re.search(r"DEPS\s+([\w\s]*?)(?:LIBS|$)", match.group(2))
        graph[match.group(1)] = set(deps.group(1).split()) if deps else set()
    return graph


def reach(graph: dict[str, set[str]], module: str, path: tuple[str, ...] = ()) -> set[str]:
    """All modules that `module` depends on; exits on a cycle."""
    if module in path:
        sys.exit("cycle: " + " -> ".join((*path, module)))
    out = set()
    for dep in graph[module]:
        out |= {dep} | reach(graph, dep, (*path, module))
    return out


def check_file(path: Path, module: str, allowed: set[str]) -> list[str]:
    """Violations of one source file."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+[<"]([^>"]+)[>"]', line)
        if match is None:
            continue
        name = match.group(1)
        where = f"{path.relative_to(ROOT)}:{number}"
        for prefix, modules in LIBRARIES.items():
            private_json = prefix == "nlohmann/" and path.suffix == ".cc"
            if name.startswith(prefix) and module not in modules and not private_json:
                found.append(f"{where}: {name} belongs to {', '.join(sorted(modules))}")
        parts = name.split("/")
        if parts[0] != "cachalot" or len(parts) < 3:
            continue
        target = parts[1]
        if target != module and target not in allowed:
            found.append(f"{where}: {module} may not include {target} (its DEPS do not reach it)")
        if target != module and re.search(r"(-inl|_internal)\.h$", name):
            found.append(f"{where}: {name} is internal to {target}")
    return found


def main() -> None:
    graph = read_graph()
    violations = []
    for module in graph:
        allowed = reach(graph, module)
        for path in sorted((SOURCES / module).glob("*")):
            if path.suffix in (".h", ".cc"):
                violations += check_file(path, module, allowed)
    for violation in violations:
        print(violation)
    if violations:
        sys.exit(1)
    print(f"{len(graph)} modules, no violation")


if __name__ == "__main__":
    main()
