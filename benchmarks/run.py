"""What README.md claims about speed, measured on your machine: `python benchmarks/run.py`.

Every figure is a whole process, started cold, interpreter included. The commands of one round run
in turn, so that a busy moment hits them all; the figures are medians over the rounds, and the ratios
are taken within each round. Compare ratios: milliseconds are of one machine at one hour.
Linux or macOS; byte counts on Linux only.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from statistics import median

HERE = os.path.dirname(os.path.abspath(__file__))
TORCH_LOAD = "import sys, torch; torch.load(sys.argv[1], map_location='cpu', mmap=True, weights_only=True)"
SLOW = 30_000  # ms
BASE, TORCH = "python -c pass", "torch.load(mmap=True)"

Cost = dict[str, float]
Command = Callable[[str], list[str]]


def beside_python(name: str) -> str | None:
    """The console script of this environment, else the one on PATH."""
    return shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)


def bnlint(*options: str) -> Command:
    script = beside_python("bnlint")
    start = [script] if script else [sys.executable, "-m", "bnlint"]
    return lambda path: [*start, "check", *options, path]


def ours() -> dict[str, Command]:
    return {
        BASE: lambda path: [sys.executable, "-c", "pass"],
        "bnlint check": bnlint(),
        "python -m bnlint check": lambda path: [sys.executable, "-m", "bnlint", "check", path],
        TORCH: lambda path: [sys.executable, "-c", TORCH_LOAD, path],
    }


PEERS: dict[str, tuple[str, ...]] = {
    "picklescan": ("picklescan", "-p"),
    "modelscan": ("modelscan", "-p"),
    "fickling": ("fickling", "--check-safety"),
    "modelaudit": ("modelaudit", "scan", "--no-cache"),
    "weightlens": ("lens", "analyze"),
    "model-clinic": ("model-clinic", "exam"),
}


def peers() -> tuple[dict[str, Command], list[str]]:
    """The commands of the peers that are installed, and the names of those that are not."""
    found: dict[str, Command] = {}
    for name, (program, *options) in PEERS.items():
        script = beside_python(program)
        if script:
            found[name] = lambda path, start=(script, *options): [*start, path]
    return found, [name for name in PEERS if name not in found]


# -- measuring ----------------------------------------------------------------------------------------


def cost(command: Sequence[str], folder: str) -> Cost:
    """One cold process in a scratch folder, without telemetry, with the bytecode that earlier ones left."""
    environment = {**os.environ, "NO_ANALYTICS": "1", "PROMPTFOO_DISABLE_TELEMETRY": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    measured = subprocess.run(
        [sys.executable, "-I", "-S", os.path.join(HERE, "measure.py"), *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(measured.stdout)


def interleaved(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Cost]]:
    """Every command once per round, each round starting with another one; a slow one only once at all."""
    names = list(commands)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        first = {name: cost(commands[name], folder) for name in names}  # bytecode and page cache: not counted
        names = [name for name in names if first[name]["ms"] < SLOW]
        for i in range(rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                costs[name].append(cost(commands[name], folder))
    for name in costs:
        costs[name] = costs[name] or [first[name]]
    return costs


def typical(costs: Sequence[Cost], what: str) -> float:
    return median(each[what] for each in costs)


def ratio(costs: Sequence[Cost], others: Sequence[Cost], what: str = "ms") -> float:
    """The median of the ratios within each round."""
    return median(one[what] / other[what] for one, other in zip(costs, others, strict=False))


def drop_from_cache(path: str) -> str:
    """Ask the system to forget a file's pages, so that the next read comes from the disk; the path again."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


# -- tables -------------------------------------------------------------------------------------------


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(heading) + " |")
    print("|--" + "|--:" * (len(heading) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def one_file(files: str, names: Sequence[str], rounds: int, commands: dict[str, Command]) -> None:
    """Time and peak memory per command and size."""
    print("## One checkpoint, one process\n")
    for name in names:
        path = os.path.join(files, f"{name}.pth")
        measured = interleaved({title: command(path) for title, command in commands.items()}, rounds)
        print(f"{name}, {os.path.getsize(path) / 2**20:.0f} MB:\n")
        rows = [
            [
                title,
                f"{typical(costs, 'ms'):.0f}",
                f"{ratio(costs, measured[BASE]):.1f}",
                f"{ratio(costs, measured['bnlint check']):.1f}",
                f"{typical(costs, 'mb'):.0f}",
                f"{costs[0]['exit']}",
            ]
            for title, costs in measured.items()
        ]
        table(["command", "ms", "x bare python", "x bnlint", "peak MB", "exit code"], rows)


def same_time_whatever_the_size(files: str, names: Sequence[str], rounds: int) -> None:
    print("## The same command over the sizes\n")
    measured = interleaved({name: bnlint()(os.path.join(files, f"{name}.pth")) for name in names}, rounds)
    rows = [
        [
            name,
            f"{typical(costs, 'ms'):.0f}",
            f"{ratio(costs, measured[names[0]]):.2f}",
            f"{typical(costs, 'mb'):.1f}",
        ]
        for name, costs in measured.items()
    ]
    table(["file", "ms", f"x {names[0]}", "peak MB"], rows)


def bytes_read(files: str, names: Sequence[str], rounds: int) -> None:
    """Bytes asked of the file: what the process reads beyond a check of a file of one small layer."""
    print("## Bytes of the file\n")
    tiny = os.path.join(files, "tiny.pth")
    rows = []
    for name in names:
        path = os.path.join(files, f"{name}.pth")
        with open(f"{path[:-4]}.json") as file:
            least = json.load(file)
        with tempfile.TemporaryDirectory() as folder:
            rest = cost(bnlint()(tiny), folder)["asked"] - os.path.getsize(tiny)
            asked = cost(bnlint()(path), folder)["asked"] - rest
            from_disk = {}
            for title, command in (("bnlint", bnlint()), ("torch", ours()[TORCH])):
                cold = [cost(command(drop_from_cache(path)), folder) for _ in range(max(3, rounds // 2))]
                from_disk[title] = typical(cold, "read")
        needed = least["batchnorm_bytes"] + least["directory_bytes"] + least["pickle_bytes"]
        figures = (os.path.getsize(path), needed, asked, from_disk["bnlint"], from_disk["torch"])
        rows.append([name, *(f"{figure / 1024:,.0f}" for figure in figures)])
    print("In kB. Needed: BatchNorm tensors, zip directory, pickle.\n")
    table(["file", "size", "needed", "asked by bnlint", "from disk, bnlint", f"from disk, {TORCH}"], rows)


def with_configuration(files: str, name: str, rounds: int) -> None:
    print("## With a YAML configuration and JSON output\n")
    path = os.path.join(files, f"{name}.pth")
    config = os.path.join(files, "bnlint.yaml")
    with open(config, "w") as file:
        file.write(
            "extends: recommended\nfail-on: error\nrules: {dead-channels: {severity: warning, fraction: 0.25}}\n"
        )
    commands = {
        BASE: ours()[BASE](path),
        "bnlint check": bnlint()(path),
        "bnlint check --output json": bnlint("--output", "json")(path),
        "bnlint check --config F": bnlint("--config", config)(path),
        "bnlint check --config F --output json": bnlint("--config", config, "--output", "json")(path),
    }
    measured = interleaved(commands, rounds)
    rows = [
        [title, f"{typical(costs, 'ms'):.0f}", f"{ratio(costs, measured[BASE]):.1f}", f"{typical(costs, 'mb'):.0f}"]
        for title, costs in measured.items()
    ]
    table(["command", "ms", "x bare python", "peak MB"], rows)


def many_files(files: str, rounds: int, count: int = 200) -> None:
    print(f"## {count} checkpoints in one run\n")
    rows = []
    for name in ("small", "resnet50-shaped"):
        folder = os.path.join(files, f"{name}x{count}")
        commands = {
            "single": bnlint()(os.path.join(folder, "000.pth")),
            "-j 1": bnlint("-j", "1")(folder),
            "-j 2": bnlint("-j", "2")(folder),
        }
        measured = interleaved(commands, rounds)
        one, serial, parallel = (measured[title] for title in commands)
        rows.append(
            [
                name,
                f"{typical(one, 'ms'):.0f}",
                f"{typical(serial, 'ms'):.0f}",
                f"{typical(parallel, 'ms'):.0f}",
                f"{count * ratio(one, serial):.1f}",
                f"{ratio(serial, parallel):.2f}",
                f"{typical(serial, 'mb'):.0f}",
            ]
        )
    heading = ["files", "one file, ms", "-j 1, ms", "-j 2, ms", f"{count} runs / -j 1", "-j 1 / -j 2", "peak MB"]
    table(heading, rows)


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", default=os.path.join(HERE, "files"), help="where the checkpoints lie or go")
    parser.add_argument("--sizes", default="50MB,500MB,3GB", help="which of them, separated by commas")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peer-rounds", type=int, default=3, help="rounds with the peers; 0 leaves them out")
    arguments = parser.parse_args()
    names = arguments.sizes.split(",")
    arguments.files = os.path.abspath(arguments.files)

    generate = [sys.executable, os.path.join(HERE, "generate.py"), arguments.files]
    batches = ["small", "smallx200", "resnet50-shaped", "resnet50-shapedx200"]
    subprocess.run([*generate, *names, "tiny", *batches], check=True)

    for name in names:  # the files are healthy: a run that finds something, or fails, is not worth timing
        subprocess.run(bnlint()(os.path.join(arguments.files, f"{name}.pth")), stdout=subprocess.DEVNULL, check=True)

    print(f"# Benchmark: {machine()}\n")
    one_file(arguments.files, names, arguments.rounds, ours())
    same_time_whatever_the_size(arguments.files, names, arguments.rounds)
    if sys.platform == "linux":
        bytes_read(arguments.files, names, arguments.rounds)
    with_configuration(arguments.files, names[0], arguments.rounds)
    many_files(arguments.files, max(3, arguments.rounds // 3))
    if arguments.peer_rounds:
        found, absent = peers()
        print(f"# Beside the peers\n\nNot installed here, so not measured: {', '.join(absent) or 'none'}.\n")
        one_file(arguments.files, names, arguments.peer_rounds, {**ours(), **found})


if __name__ == "__main__":
    main()
