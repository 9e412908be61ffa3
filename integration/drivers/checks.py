"""The frame of a driver test in Python: checks run in the order in which they
are written, each prints `ok name` or `FAIL name: why`, and what it saw goes on
lines `see name: value`, which must be the same direct and through the router.
Standard library only.
"""

import asyncio
import inspect
import os
import signal
import sys
import traceback

CHECK_SECONDS_MAX = 40

_checks = []
_current = "start"


def check(function):
    """Registers a check; its name is the function's."""
    _checks.append(function)
    return function


def see(value):
    """Prints something observed, to be compared between direct and router."""
    print(f"see {_current}: {value}", flush=True)


def equal(got, wanted, what="value"):
    """Fails the check unless the two are equal."""
    if got != wanted:
        raise AssertionError(f"{what} is {got!r}, expected {wanted!r}")


def url():
    """The database to talk to: the first argument."""
    return sys.argv[1]


def main():
    """Runs the checks (all, or those whose names follow the URL)."""
    global _current
    chosen = sys.argv[2:]
    failed = 0
    signal.signal(signal.SIGALRM, _too_long)
    for function in _checks:
        _current = function.__name__
        if chosen and _current not in chosen:
            continue
        signal.alarm(CHECK_SECONDS_MAX)
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(asyncio.wait_for(function(), CHECK_SECONDS_MAX - 5))
            else:
                function()
            print(f"ok {_current}", flush=True)
        except BaseException as error:  # a check must never end the program
            failed += 1
            print(f"FAIL {_current}: {_describe(error)}", flush=True)
            if os.environ.get("KEYWAY_TEST_TRACE"):
                traceback.print_exc()
            if isinstance(error, KeyboardInterrupt):
                break
        finally:
            signal.alarm(0)
    sys.stdout.flush()
    # Threads of a pool that hangs must not keep the program.
    os._exit(1 if failed else 0)


def _too_long(_signal, _frame):
    raise TimeoutError(f"still running after {CHECK_SECONDS_MAX} s")


def _describe(error):
    text = " ".join(str(error).split())
    here = [f for f in traceback.extract_tb(error.__traceback__) if os.path.basename(f.filename) == os.path.basename(sys.argv[0])]
    line = here[-1].lineno if here else 0
    return f"{type(error).__name__}: {text} (line {line})"
