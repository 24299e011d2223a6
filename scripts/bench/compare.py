#!/usr/bin/env python3
"""Times every stage of ssl3d side by side with the Python libraries that people use for it.

The two take turns (ours, theirs, ours, theirs, ...) in processes of their own for each stage, after a warm-up;
while one works the other sleeps. Prints Markdown. The first run installs the peers into target/bench-peers/. A peer
that is not installed and cannot be is skipped, and our side is timed alone.

Needs what the build of ssl3d needs, and Python 3.11 with venv. With SSL3D_CHAOS_DIR set, scans 1 and 2 of that
folder are cut and segmented instead of generated ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True  # nothing beside the sources
if sys.version_info < (3, 11):
    sys.exit(f"compare: expected Python 3.11 or newer, found {sys.version.split()[0]}; start it with another")

from configuration import settings  # noqa: E402
from environment import Fault, prepare  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
# Both sides have to give the same numbers in the first call, up to the order of sums in float32.
AGREEMENT = 2e-3
SIZES = [(37, 256, 256), (74, 256, 256), (74, 512, 256), (74, 512, 512)]
SMALLEST_SIZES = [(8, 32, 32), (8, 64, 32)]


# What the peers import.
SLIC_PACKAGES = ("numpy", "nibabel", "skimage")
QUALITY_PACKAGES = (*SLIC_PACKAGES, "safetensors", "scipy")
TORCH_PACKAGES = ("safetensors", "torch")
SEGMENT_PACKAGES = ("torch", "torchio", "nibabel", "skimage")
PACKAGES = sorted({*QUALITY_PACKAGES, *TORCH_PACKAGES, *SEGMENT_PACKAGES})


@dataclass
class Target:
    """What a row should reach; a limit of None does not count."""

    ratio: float | None = None
    seconds: float | None = None
    megabytes: float | None = None

    def judge(self, row: Row) -> str:
        limits = []
        if self.ratio is not None and row.ratios:
            limits.append((f"≥ {self.ratio:g}×", statistics.median(row.ratios) >= self.ratio))
        if self.seconds is not None:
            limits.append((f"≤ {duration(self.seconds)}", statistics.median(row.ours.seconds) <= self.seconds))
        if self.megabytes is not None:
            limits.append((f"≤ {self.megabytes:g} MB", row.ours.peak_mb <= self.megabytes))
        return ", ".join(f"{limit}: {'met' if met else 'missed'}" for limit, met in limits) or "report"


@dataclass
class Stage:
    """One row: the order for either side, without threads and inputs."""

    name: str
    what: str
    ours: dict
    theirs: dict | None = None
    peer: str = "-"
    packages: tuple[str, ...] = ()
    target: Target = field(default_factory=Target)
    calls: int = 1
    most_rounds: int = 100
    our_threads: int | None = None
    same_numbers: bool = False
    slow: bool = False


@dataclass
class Side:
    """What was measured of one side."""

    seconds: list[float] = field(default_factory=list)
    start_mb: float = 0.0
    peak_mb: float = 0.0
    numbers: list[float] = field(default_factory=list)


@dataclass
class Row:
    name: str
    what: str
    peer: str
    ours: Side
    theirs: Side | None = None
    ratios: list[float] = field(default_factory=list)
    verdict: str = ""
    skipped: str = ""


class Worker:
    """A process with one prepared stage."""

    def __init__(self, command: list[str], order: dict, threads: int) -> None:
        self.name = f"{Path(command[-1]).name} {order['stage']}"
        self.process = subprocess.Popen(
            [*command, json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads),
        )
        self._read()
        self._forget_peak()
        self.start_mb = self.peak_mb()

    def ask(self, **request: object) -> dict:
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as fault:
            raise Fault(f"{self.name} has ended; see its message above") from fault
        return self._read()

    def _read(self) -> dict:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise Fault(f"{self.name} ended with {self.process.wait()}; see its message above")
        return json.loads(line)

    def _forget_peak(self) -> None:
        """The highest memory so far was that of the start; where the kernel does not let us, it stays."""
        try:
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        except OSError:
            print(f"compare: the peak of {self.name} includes its start", file=sys.stderr)

    def peak_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes) / 1024

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def environment(threads: int) -> dict[str, str]:
    """Waiting threads sleep, so that the side that waits takes nothing from the other."""
    ours = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | ours


@dataclass
class Bench:
    binary: str
    stage: str
    python: str
    inputs: Path
    support: Path
    label: Path
    query: Path
    threads: int
    rounds: int
    smallest: bool
    # Why a package of the peers cannot be used, for each that cannot.
    missing: dict[str, str] = field(default_factory=dict)

    def why_skipped(self, packages: Iterable[str]) -> str:
        """Empty where all of the packages are there."""
        return "; ".join(self.missing[package] for package in packages if package in self.missing)

    def ours(self, order: dict, threads: int | None = None) -> Worker:
        return self._worker([self.stage], order, threads or self.threads)

    def theirs(self, order: dict) -> Worker:
        order = order | {"settings": self.settings(order.get("config", "paper"))}
        return self._worker([self.python, str(ROOT / "scripts/bench/peers.py")], order, self.threads)

    def target(self, target: Target) -> Target:
        """None at the smallest sizes, of which nothing is expected."""
        return Target() if self.smallest else target

    def settings(self, config: str) -> dict:
        return settings(self.inputs / f"weights_{config}.safetensors")

    def _worker(self, command: list[str], order: dict, threads: int) -> Worker:
        shared = {"threads": threads, "inputs": str(self.inputs), "smallest": self.smallest}
        return Worker(command, order | shared, threads)

    def segment(self, support: Path, label: Path, query: Path, out: Path) -> list[str]:
        return [
            *[self.binary, "--quiet", "--threads", str(self.threads), "segment", "--force", "--device", "cpu"],
            *["--weights", str(self.inputs / "weights_cpu.safetensors"), "--out", str(out)],
            *["--support", str(support), "--support-label", str(label), "--query", str(query)],
        ]

    def slic_stage(self, k: int) -> Stage:
        order = {"stage": "slic", "k": k, "image": str(self.support)}
        peer = "scikit-image (1 thread)"
        return Stage(f"slic-{k}", f"SLIC, k = {k}", order, order, peer, SLIC_PACKAGES, Target(ratio=10))

    def stages(self) -> list[Stage]:
        image = str(self.support)
        alp = "ALP scores, forward and backward, 55,296 × 384 × 16"
        paper = {"stage": "step", "config": "paper", "alignment": True}
        cpu = {"stage": "step", "config": "cpu", "alignment": True}
        return [
            *(self.slic_stage(k) for k in (10, 60, 400, 2000)),
            Stage(
                "felzenszwalb",
                "Felzenszwalb in 3D, 26 neighbours",
                {"stage": "felzenszwalb", "image": image},
                target=Target(seconds=2),
            ),
            Stage(
                "augment",
                "affine + elastic + gamma, 24 × 128 × 128 with mask, ours on 1 thread",
                {"stage": "augment"},
                {"stage": "augment"},
                "TorchIO (its default threads)",
                ("numpy", "safetensors", "torchio"),
                Target(seconds=0.025),
                calls=5,
                our_threads=1,
            ),
            *(
                Stage(
                    f"alp-{peer}",
                    alp,
                    {"stage": "alp"},
                    {"stage": "alp", "blocked": peer == "blocked"},
                    f"PyTorch, {peer}",
                    TORCH_PACKAGES,
                    Target(seconds=0.06),
                    calls=3,
                    same_numbers=True,
                )
                for peer in ("naive", "blocked")
            ),
            Stage("episode", "data of one training step, cpu.toml", {"stage": "episode", "config": "cpu"}, calls=10),
            Stage("step-cpu", "training step, cpu.toml", cpu, cpu, "PyTorch", TORCH_PACKAGES, same_numbers=True),
            Stage(
                "step-paper",
                "training step, paper.toml",
                paper,
                paper,
                "PyTorch",
                TORCH_PACKAGES,
                Target(seconds=12, megabytes=2500),
                most_rounds=3,
                same_numbers=True,
                slow=True,
            ),
        ]


def measure(bench: Bench, stage: Stage, calls: int) -> Row:
    say(f"{stage.name}: {stage.what}")
    rounds = min(bench.rounds, stage.most_rounds)
    skipped = bench.why_skipped(stage.packages)
    if stage.theirs is None or skipped:
        with bench.ours(stage.ours, stage.our_threads) as worker:
            (ours,) = take_turns([worker], rounds, calls)
        return finish(Row(stage.name, stage.what, stage.peer, ours, skipped=skipped), bench.target(stage.target))
    with bench.ours(stage.ours, stage.our_threads) as our_worker, bench.theirs(stage.theirs) as their_worker:
        ours, theirs = take_turns([our_worker, their_worker], rounds, calls)
    row = finish(Row(stage.name, stage.what, stage.peer, ours, theirs), bench.target(stage.target))
    if stage.same_numbers and not agree(ours.numbers, theirs.numbers):
        say(f"{stage.name}: first call gave {ours.numbers} on our side, {theirs.numbers} on theirs")
        row.verdict = "void: the two do different work"
    return row


def take_turns(workers: list[Worker], rounds: int, calls: int) -> list[Side]:
    sides = [Side(start_mb=worker.start_mb, numbers=worker.ask(calls=1)["numbers"]) for worker in workers]
    for _ in range(rounds):
        for worker, side in zip(workers, sides, strict=True):
            side.seconds.append(worker.ask(calls=calls)["seconds"])
    for worker, side in zip(workers, sides, strict=True):
        side.peak_mb = worker.peak_mb()
    return sides


def finish(row: Row, target: Target) -> Row:
    if row.theirs is not None:
        row.ratios = [theirs / ours for ours, theirs in zip(row.ours.seconds, row.theirs.seconds, strict=True)]
    row.verdict = target.judge(row)
    return row


def agree(ours: list[float], theirs: list[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=AGREEMENT) for a, b in zip(ours, theirs, strict=True))


def measure_segment(bench: Bench) -> Row:
    say("segment: whole process, and the imports that a Python program would begin with")
    skipped = bench.why_skipped(SEGMENT_PACKAGES)
    with tempfile.TemporaryDirectory() as out:
        commands = [bench.segment(bench.support, bench.label, bench.query, Path(out))]
        if not skipped:
            commands.append([bench.python, "-c", f"import {', '.join(SEGMENT_PACKAGES)}"])
        sides = [Side() for _ in commands]
        for turn in range(bench.rounds + 1):
            for command, side in zip(commands, sides, strict=True):
                seconds, peak_mb = run_process(command, bench.threads)
                side.peak_mb = max(side.peak_mb, peak_mb)
                if turn > 0:
                    side.seconds.append(seconds)
    what = "`ssl3d segment`, one support, one query, cpu.toml with one network and its templates: whole process"
    row = Row("segment", what, "Python's imports alone", *sides, skipped=skipped)
    return finish(row, bench.target(Target(seconds=3)))


def run_process(command: list[str], threads: int) -> tuple[float, float]:
    """Wall time in seconds and peak memory in megabytes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment(threads), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Fault(f"{Path(command[0]).name} ended with {process.returncode}; see its message above")
    return seconds, usage.ru_maxrss / 1024


def compare_quality(bench: Bench, k: int) -> dict:
    """Regions of both sides against the organs."""
    say(f"quality of SLIC, k = {k}")
    order = bench.slic_stage(k).ours
    scores: dict = {"k": k}
    with tempfile.TemporaryDirectory() as folder, bench.theirs({"stage": "quality"}) as judge:
        for side, start in (("ours", bench.ours), ("theirs", bench.theirs)):
            path = str(Path(folder) / f"{side}.safetensors")
            with start(order) as worker:
                worker.ask(calls=1)
                worker.ask(regions=path)
            scores[side] = judge.ask(score=path, organs=str(bench.label))
    return scores


def scale(bench: Bench) -> list[dict]:
    """Seconds at growing numbers of voxels (one abdomen, sampled ever finer), and the slope between the logarithms."""
    sizes = SMALLEST_SIZES if bench.smallest else SIZES
    curves: dict[str, list[float]] = {}
    for size_vox in sizes:
        name = "x".join(map(str, size_vox))
        image, label = (bench.inputs / f"{what}_{name}.nii.gz" for what in ("scan", "scan_label"))
        say(f"scaling: {name}")
        paths = {"image": str(image), "label": str(label)}
        order = {"stage": "scan", "size_vox": size_vox, **paths}
        write_inputs(bench.stage, bench.inputs, order, bench.smallest)
        for stage in ("slic", "felzenszwalb"):
            with bench.ours({"stage": stage, "k": 400, "image": str(image)}) as worker:
                (side,) = take_turns([worker], bench.rounds, 1)
            curves.setdefault(stage, []).append(statistics.median(side.seconds))
        with tempfile.TemporaryDirectory() as out:
            command = bench.segment(image, label, image, Path(out))
            seconds = [run_process(command, bench.threads)[0] for _ in range(bench.rounds)]
        curves.setdefault("segment", []).append(statistics.median(seconds))
    voxels = [math.log(math.prod(size)) for size in sizes]

    def exponent(seconds: list[float]) -> float:
        return statistics.linear_regression(voxels, [math.log(s) for s in seconds]).slope

    names = ["×".join(map(str, size)) for size in sizes]
    return [
        {"stage": stage, "sizes": names, "seconds": seconds, "exponent": exponent(seconds)}
        for stage, seconds in curves.items()
    ]


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def spread(values: list[float], text: Callable[[float], str]) -> str:
    return " / ".join(text(value) for value in (min(values), statistics.median(values), max(values)))


def memory(side: Side) -> str:
    grown = f" (+{side.peak_mb - side.start_mb:.0f})" if side.start_mb else ""
    return f"{side.peak_mb:.0f}{grown}"


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times_table(rows: list[Row]) -> str:
    header = ["stage", "peer", "ours", "theirs", "theirs / ours", "MB ours", "MB theirs", "target"]

    def cells(row: Row) -> list[str]:
        theirs = spread(row.theirs.seconds, duration) if row.theirs else "skipped" if row.skipped else "-"
        ratios = spread(row.ratios, lambda ratio: f"{ratio:.3g}") if row.ratios else "-"
        their_memory = memory(row.theirs) if row.theirs else "-"
        ours = spread(row.ours.seconds, duration)
        return [row.what, row.peer, ours, theirs, ratios, memory(row.ours), their_memory, row.verdict]

    note = "Times and ratios: min / median / max. MB: peak of the process (of which the stage added)."
    skipped = "".join(f"\n- skipped: {row.name}, {row.peer}: {row.skipped}" for row in rows if row.skipped)
    return "\n\n".join([table(header, map(cells, rows)), note, *filter(None, [skipped.strip()])])


def quality_table(scores: list[dict]) -> str:
    header = ["SLIC", "regions", "achievable accuracy", "boundary recall"]

    def cells(score: dict) -> list[str]:
        def both(key: str, form: str) -> str:
            return " : ".join(format(score[side][key], form) for side in ("ours", "theirs"))

        return [f"k = {score['k']}", both("regions", "d"), both("accuracy", ".4f"), both("recall", ".4f")]

    return f"{table(header, map(cells, scores))}\n\nOurs : theirs, against the organs' labels."


def scaling_table(curves: list[dict]) -> str:
    header = ["stage", *curves[0]["sizes"], "exponent"]

    def cells(curve: dict) -> list[str]:
        return [curve["stage"], *map(duration, curve["seconds"]), f"{curve['exponent']:.2f}"]

    return f"{table(header, map(cells, curves))}\n\nMedian times; exponent: the slope of log time over log voxels."


def build(profile: str) -> tuple[str, str]:
    """The paths of the binary and of our worker; with a bench cargo builds the binary, too. Both share the libraries
    that `cargo test` has built with the same profile."""
    say("building")
    cargo = [os.environ.get("CARGO", "cargo"), "build", "--locked", "--quiet", f"--profile={profile}"]
    command = [*cargo, "--bench=stage", "--message-format=json-render-diagnostics"]
    try:
        messages = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as fault:
        raise Fault("cargo build failed; see its message above") from fault
    built = {}
    for message in map(json.loads, messages.splitlines()):
        if message.get("executable"):
            built[message["target"]["name"]] = message["executable"]
    if not {"ssl3d", "stage"} <= built.keys():
        raise Fault(f"expected cargo to build ssl3d and stage, found {sorted(built)}; does Cargo.toml still have them?")
    return built["ssl3d"], built["stage"]


def interpreter(arguments: argparse.Namespace) -> str:
    """The Python that has the peers, as far as they can be had."""
    folder = TARGET / "bench-peers/venv"
    if arguments.peers:
        return arguments.peers
    if arguments.smallest:  # nothing is installed for it
        installed = folder / "bin/python"
        return str(installed) if installed.exists() else sys.executable
    try:
        return str(prepare(folder))
    except Fault as fault:
        say(f"the peers could not be installed: {fault}")
        return sys.executable


def missing_packages(python: str) -> dict[str, str]:
    """Why a package cannot be imported, for each that cannot."""
    missing = {}
    for package in PACKAGES:
        try:
            command = [python, "-c", f"import {package}"]
            found = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as fault:
            raise Fault(f"{python} does not start ({fault}); let --peers name a Python") from fault
        if found.returncode != 0:
            lines = found.stderr.strip().splitlines() or [f"import {package} ended with {found.returncode}"]
            missing[package] = lines[-1]
    return missing


def write_inputs(stage: str, inputs: Path, order: dict, smallest: bool) -> None:
    shared = {"threads": os.cpu_count() or 1, "inputs": str(inputs), "smallest": smallest}
    command = [stage, json.dumps(order | shared)]
    if subprocess.run(command, check=False, env=environment(1)).returncode != 0:
        raise Fault("the inputs could not be written; see the message above")


def scans(inputs: Path, generated: bool) -> tuple[Path, Path, Path]:
    """Support, its label and query."""
    folder = os.environ.get("SSL3D_CHAOS_DIR")
    if folder is None or generated:
        return inputs / "support.nii.gz", inputs / "support_label.nii.gz", inputs / "query.nii.gz"
    chaos = Path(folder)
    paths = chaos / "image_1.nii.gz", chaos / "label_1.nii.gz", chaos / "image_2.nii.gz"
    for path in paths:
        if not path.exists():
            raise Fault(f"{path} does not exist; let SSL3D_CHAOS_DIR name the folder with the scans, or unset it")
    return paths


def machine(threads: int, generated: bool) -> dict:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, check=False, cwd=ROOT, capture_output=True, text=True)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "commit": commit.stdout.strip(),
        "scans": "CHAOS" if "SSL3D_CHAOS_DIR" in os.environ and not generated else "generated",
    }


def say(text: str) -> None:
    print(f"compare: {text}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of either side after the warm-up (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="of both sides, unless a row says otherwise (default 2)")
    parser.add_argument("--only", default="", help="rows whose names begin so, for instance slic,alp-naive,step-cpu")
    parser.add_argument("--quick", action="store_true", help="one round, without the paper's training step")
    smallest = "one round of everything at the smallest sizes, generated; its times mean nothing; installs no peers"
    parser.add_argument("--smallest", action="store_true", help=smallest)
    parser.add_argument("--peers", metavar="PYTHON", help="one that has the peers (default: one made for them)")
    parser.add_argument("--profile", default="release", help="cargo's, to build ours with (default release)")
    parser.add_argument("--scaling", action="store_true", help="instead: ours at 1, 2, 4 and 8 times the voxels")
    parser.add_argument("--out", type=Path, help="also write everything as JSON here")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads begin at 1")
    return arguments


def compare(bench: Bench, arguments: argparse.Namespace) -> dict:
    beginnings = tuple(filter(None, arguments.only.split(",")))

    def wanted(name: str) -> bool:
        return not beginnings or name.startswith(beginnings)

    stages = [stage for stage in bench.stages() if wanted(stage.name) and not (stage.slow and arguments.quick)]
    if not stages and not wanted("segment"):
        names = ", ".join([*(stage.name for stage in bench.stages()), "segment"])
        raise Fault(f"--only {arguments.only} names no row; they are {names}")
    once = arguments.quick or arguments.smallest
    rows = [measure(bench, stage, 1 if once else stage.calls) for stage in stages]
    if wanted("segment"):
        rows.append(measure_segment(bench))
    if arguments.smallest:
        print("Smallest sizes, not those that the rows name: the times mean nothing.\n")
    print(times_table(rows))
    regions = [stage.ours["k"] for stage in stages if stage.ours["stage"] == "slic"]
    skipped = bench.why_skipped(QUALITY_PACKAGES)
    if regions and skipped:
        print(f"- skipped: quality of SLIC, scikit-image: {skipped}")
    quality = [] if skipped else [compare_quality(bench, k) for k in regions]
    if quality:
        print("\n" + quality_table(quality))
    return {"rows": [to_json(row) for row in rows], "quality": quality}


def to_json(row: Row) -> dict:
    return vars(row) | {"ours": vars(row.ours), "theirs": row.theirs and vars(row.theirs)}


def run(arguments: argparse.Namespace) -> None:
    smallest = arguments.smallest
    inputs = TARGET / "bench-peers" / ("inputs_smallest" if smallest else "inputs")
    python = interpreter(arguments)
    missing = missing_packages(python)
    binary, stage = build(arguments.profile)
    say("writing inputs")
    write_inputs(stage, inputs, {"stage": "inputs"}, smallest)
    rounds = 1 if arguments.quick or smallest else arguments.rounds
    paths = scans(inputs, generated=smallest)
    bench = Bench(binary, stage, python, inputs, *paths, arguments.threads, rounds, smallest, missing)
    for config in ("cpu", "paper"):
        bench.settings(config)  # before anything is timed: a key that is gone shows now, peers or none
    about = machine(arguments.threads, generated=smallest)
    print(", ".join(f"{key} {value}" for key, value in about.items()) + "\n")
    if arguments.scaling:
        curves = scale(bench)
        print(scaling_table(curves))
        results = {"scaling": curves}
    else:
        results = compare(bench, arguments)
    if arguments.out:
        arguments.out.write_text(json.dumps(about | results, indent=1) + "\n")


def main() -> None:
    try:
        run(parse())
    except Fault as fault:
        sys.exit(f"compare: {fault}")
    except KeyboardInterrupt:
        sys.exit("compare: stopped")


if __name__ == "__main__":
    main()
