"""Runs one module of CPython's test-suite and reports each of its tests.

Usage: cpython.py MODULE, started by conformance-runner, whose protocol it speaks on standard output:
"@start", "@ok", "@skip" and "@fail" lines, fields between tabs. What the tests print goes to standard
error. Environment: CONFORMANCE_DONE names a file with tests to leave out, CONFORMANCE_ONLY one with
the tests to run (all if it is empty).
"""

import faulthandler
import os
import sys
import unittest

# Tests may need the network, a display or gigabytes of disk: those are left out.
RESOURCES = ["subprocess", "cpu", "tzdata"]


class Reporter:
    """Writes the protocol to what was standard output."""

    def __init__(self):
        self.output = os.fdopen(os.dup(1), "w", buffering=1, errors="backslashreplace")
        self.process = os.getpid()
        os.dup2(2, 1)

    def tell(self, *fields):
        # A child that a test forked and that came back here must not report.
        if os.getpid() == self.process:
            print("@" + "\t".join(" ".join(str(field).split()) for field in fields), file=self.output)


class Result(unittest.TestResult):
    """Reports each test once, by the worst that happened in it."""

    def __init__(self, reporter):
        super().__init__()
        self.reporter = reporter
        self.problem = None
        self.skip = None

    def startTest(self, test):
        super().startTest(test)
        self.problem = self.skip = None
        print("---", test.id(), file=sys.stderr, flush=True)
        self.reporter.tell("start", test.id())

    def stopTest(self, test):
        super().stopTest(test)
        if self.problem is not None:
            self.reporter.tell("fail", test.id(), self.problem)
        elif self.skip is not None:
            self.reporter.tell("skip", test.id(), self.skip)
        else:
            self.reporter.tell("ok", test.id())

    def note(self, test, error):
        print(self._exc_info_to_string(error, test), file=sys.stderr, flush=True)
        problem = f"{error[0].__name__}: {error[1]}"[:300]
        if isinstance(test, unittest.TestCase):
            self.problem = self.problem or problem
        else:
            # A class or module that could not be set up or torn down.
            self.reporter.tell("fail", test.id(), problem)

    def addError(self, test, error):
        self.note(test, error)

    def addFailure(self, test, error):
        self.note(test, error)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            print("in", subtest, file=sys.stderr)
            self.note(test, error)

    def addUnexpectedSuccess(self, test):
        self.problem = "unexpected success"

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            self.skip = reason
        else:
            self.reporter.tell("skip", test.id(), reason)


def names(variable):
    """The lines of the file that the variable names."""
    try:
        with open(os.environ.get(variable, "")) as file:
            return set(file.read().split("\n")) - {""}
    except OSError:
        return set()


def tests_in(suite):
    """All test cases of a suite, in order."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_in(each)
        else:
            yield each


def main():
    reporter = Reporter()
    faulthandler.enable(file=sys.stderr)
    from test import support
    from test.support import os_helper

    support.use_resources = RESOURCES
    support.verbose = 0
    done, only = names("CONFORMANCE_DONE"), names("CONFORMANCE_ONLY")
    with os_helper.temp_cwd():
        try:
            found = unittest.defaultTestLoader.loadTestsFromName("test." + sys.argv[1])
        except unittest.SkipTest as skip:
            reporter.tell("skip", sys.argv[1], skip)
            return
        chosen = [test for test in tests_in(found) if test.id() not in done and (not only or test.id() in only)]
        unittest.TestSuite(chosen).run(Result(reporter))
    # Threads that a test has left behind must not keep the process.
    sys.stderr.flush()
    os._exit(0)


# Children that a test spawns read this file again.
if __name__ == "__main__":
    main()
