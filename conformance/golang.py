"""Runs the tests of one package of Go's standard library and reports each.

Usage: golang.py PACKAGE, started by conformance-runner in the package's folder, where its test program is `run.test`. Speaks the
runner's protocol on standard output: "@start", "@ok", "@skip" and "@fail" lines, fields between tabs. What the tests print goes to
standard error. Environment: CONFORMANCE_DONE names a file with tests to leave out, CONFORMANCE_ONLY one with the tests to run (all if it
is empty).
"""

import os
import subprocess
import sys

PROGRAM = "./run.test"


def names(variable):
    """The lines of the file that the variable names."""
    try:
        with open(os.environ.get(variable, "")) as file:
            return set(file.read().split("\n")) - {""}
    except OSError:
        return set()


def tell(*fields):
    print("@" + "\t".join(" ".join(str(field).split()) for field in fields), flush=True)


def verdict(name, output, status):
    """What the program said of the test, or its status if it said nothing."""
    for line in output.splitlines():
        if line.startswith("--- SKIP: " + name + " "):
            return "skip", "see the log"
    if status == 0:
        return "ok", ""
    complaints = [line.strip() for line in output.splitlines() if ".go:" in line or line.startswith("panic:")]
    return "fail", complaints[0][:300] if complaints else f"status {status}"


def run(package, test):
    name = f"{package}.{test}"
    tell("start", name)
    print("---", name, file=sys.stderr, flush=True)
    command = [PROGRAM, "-test.v", "-test.short", "-test.timeout=100s", "-test.run", f"^{test}$"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    sys.stderr.write(output)
    sys.stderr.flush()
    tell(*((word := verdict(test, output, done.returncode))[0], name, word[1]))


def main():
    package = sys.argv[1]
    os.environ.update(GOROOT="/opt/go", HOME="/root", TMPDIR="/tmp", GO_BUILDER_NAME="")
    listed = subprocess.run([PROGRAM, "-test.list", "."], stdout=subprocess.PIPE, check=True).stdout.decode()
    tests = [line for line in listed.split("\n") if line.startswith("Test")]
    done, only = names("CONFORMANCE_DONE"), names("CONFORMANCE_ONLY")
    for test in tests:
        name = f"{package}.{test}"
        if name not in done and (not only or name in only):
            run(package, test)


main()
