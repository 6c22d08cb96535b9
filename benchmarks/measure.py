"""Run one command in a new process and print what it cost, as JSON: `python -I -S measure.py COMMAND...`.

Kept this small because the peak memory of a child starts at that of the process which started it.
"""

import os
import signal
import sys
import time

PATIENCE = 300  # seconds, after which a command is killed


def measure(command: list[str]) -> dict[str, object]:
    """Wall time in ms, peak resident memory in MB, bytes asked of and read from disk, exit code (-9: killed)."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, stream) for stream in (0, 1, 2)]
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(PATIENCE)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    milliseconds = (time.perf_counter() - start) * 1000
    asked, read = disk_bytes(pid)
    _, status, usage = os.wait4(pid, 0)
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "ms": milliseconds,
        "mb": peak,
        "asked": asked,
        "read": read,
        "exit": os.waitstatus_to_exitcode(status),
    }


def disk_bytes(pid: int) -> tuple[int, int] | tuple[None, None]:
    """What a process that has ended asked of files and got from the disk; Linux only."""
    try:
        with open(f"/proc/{pid}/io") as file:
            counted = dict(line.split(": ") for line in file.read().splitlines())
    except OSError:
        return None, None
    return int(counted["rchar"]), int(counted["read_bytes"])


if __name__ == "__main__":
    import json

    print(json.dumps(measure(sys.argv[1:])))
