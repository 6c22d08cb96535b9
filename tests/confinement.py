"""Run a command in a small process of its own, with limits, and say what it cost.

    python confinement.py ADDRESS_SPACE CPU_SECONDS COMMAND...

The command is the child of this bare interpreter, so that the peak memory the kernel reports is its
own and not that of a test process with torch in it. The last line of stderr is the account.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How a confined process ended. `code` is negative where a signal killed it."""

    code: int
    stdout: str
    stderr: str
    megabytes: int
    cpu_seconds: float


def confined(
    command: Sequence[str | bytes | os.PathLike[str]],
    *,
    megabytes: int,
    seconds: int,
    cwd: str | os.PathLike[str],
    environment: Mapping[str, str],
) -> Outcome:
    """Run a command with at most this much address space and processor time."""
    launcher = [sys.executable, "-I", "-S", __file__, str(megabytes * MEGABYTE), str(seconds)]
    done = subprocess.run(
        [*launcher, *command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=8 * seconds,
    )
    stderr, _, account = done.stderr.decode("utf-8", "replace").rpartition("\n\x1e")
    code, kilobytes, spent = account.split()
    return Outcome(int(code), done.stdout.decode("utf-8", "replace"), stderr, int(kilobytes) >> 10, float(spent))


def main(address_space: str, cpu_seconds: str, *command: str) -> None:
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (int(address_space), int(address_space)))
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds) + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.execv(command[0], command)
    _, status, cost = os.wait4(child, 0)
    spent = cost.ru_utime + cost.ru_stime
    os.write(2, f"\n\x1e{os.waitstatus_to_exitcode(status)} {cost.ru_maxrss} {spent:.2f}".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
