"""A mutation fuzzer over every reader of outside data: `python -m attacks.fuzz --seconds 30`, in the folder tests.

Each case changes one honest file a little, makes the digests right again, and reads it in a child process. Either it is
read, or one of Vivace's own errors is raised, in SECONDS and within GROWTH_BYTES; anything else is a finding: another
error, a crash, a hang, memory, or a canary. A finding is told as TARGET:SEED, which `--case TARGET:SEED` repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

SECONDS = 20.0
"""For one case. The slowest honest file takes a hundredth of it."""
GROWTH_BYTES = 1 << 30
Read = Callable[[Path], object]
Mutate = Callable[[bytes, Random], bytes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", default="", help="only targets whose name has this in it")
    parser.add_argument("--case", default="", help="TARGET:SEED, to repeat a finding in this process")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return serve()
    if given.case:
        target, _, seed = given.case.rpartition(":")
        with tempfile.TemporaryDirectory() as name:
            print(attempt(Targets(Path(name)), target, int(seed)))  # noqa: T201 - a script's answer
        return 0
    cases, findings = fuzz(given.seconds, given.seed, given.target)
    said = f"{cases} cases from seed {given.seed}, {len(findings)} findings"
    print(said, *findings, sep="\n")  # noqa: T201 - a script's answer
    return 1 if findings else 0


def fuzz(seconds: float, seed: int, only: str = "") -> tuple[int, list[str]]:
    """How many cases were read until the time was over, and what was found."""
    child, cases = Child(), 0
    findings: list[str] = []
    until = time.monotonic() + seconds
    try:
        names = [name for name in child.targets if only in name]
        while time.monotonic() < until and len(findings) < 50:
            name, number = names[cases % len(names)], seed + cases // len(names)
            cases += 1
            said = child.read(name, number)
            if said != "fine":
                findings.append(f"{name}:{number} {said}")
    finally:
        child.stop()
    return cases, findings


class Child:
    """The process that reads; started again when it died."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "attacks.fuzz", "--child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        self.targets = json.loads(self._line(120.0) or "[]")

    def read(self, name: str, seed: int) -> str:
        """What came of a case: `fine`, or what is wrong."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, seed]) + "\n")
        self._process.stdin.flush()
        said = self._line(SECONDS)
        if said:
            return str(json.loads(said))
        ended = self._process.poll()
        self.stop()
        self._start()
        return f"took more than {SECONDS:g} s" if ended is None else f"the process ended with {ended}"

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self, seconds: float) -> str:
        stream = self._process.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], seconds)
        line = stream.readline() if ready else ""
        if not line:
            time.sleep(0.2 if ready else 0.0)  # until the process that closed its pipe has ended
        return line


def serve() -> int:
    """The child: targets first, then one answer for each case."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    with tempfile.TemporaryDirectory() as name:
        targets = Targets(Path(name))
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + 4 * GROWTH_BYTES, resource.RLIM_INFINITY))
        read = (attempt(targets, *json.loads(line)) for line in sys.stdin)
        for answer in itertools.chain([list(targets.all)], read):
            print(json.dumps(answer), file=answers, flush=True)
    return 0


def attempt(targets: Targets, name: str, seed: int) -> str:
    """Read one changed file: `fine`, or what is wrong."""
    from vivace.core.errors import VivaceError

    if name.startswith("planted/"):
        return planted(name)
    read, place, mutate = targets.all[name]
    random = Random(f"{name}:{seed}")
    folder = targets.copy(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = folder / place
    path.write_bytes(mutate(path.read_bytes(), random))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(folder)
    except VivaceError:
        pass
    except BaseException as error:  # noqa: BLE001 - every other error is a finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} at {where.filename}:{where.lineno}"
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > GROWTH_BYTES:
        return "took too much memory"
    return "code ran" if targets.canary.exists() else "fine"


def planted(name: str) -> str:
    """Faults to see that the fuzzer finds them."""
    if name == "planted/crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "planted/hang":
        time.sleep(600)
    try:
        return str(1 // 0)
    except ZeroDivisionError as error:
        return f"ZeroDivisionError: {error}"


class Targets:
    """Every reader of outside data with an honest file for it. `all` gives a name its reader, file and mutation."""

    def __init__(self, folder: Path) -> None:
        self._honest, self._work = folder / "honest", folder / "work"
        self.canary = folder / "canary"
        os.environ["CANARY"] = str(self.canary)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        self.all: dict[str, tuple[Read, str, Mutate]] = {}
        self._sources: dict[str, Path] = {}
        self._artifacts()
        self._model_files()
        self._records()

    def copy(self, name: str) -> Path:
        """A copy of a target's honest folder."""
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._sources[name], self._work)
        return self._work

    def _add(self, name: str, source: Path, place: str, mutate: Mutate, read: Read) -> None:
        self.all[name] = (read, place, mutate)
        self._sources[name] = source

    def _artifacts(self) -> None:
        from attacks import forging

        for form in ("torch", "onnx", "openvino"):
            base = self._honest / form
            base.mkdir(parents=True)
            model = getattr(forging, f"{form}_model")(base)
            folder = forging.artifact_of(model, base / "fast", base / "making")
            for path in sorted(folder.rglob("*")):
                if path.suffix in (".json", ".safetensors", ".pt2", ".onnx", ".xml", ".bin"):
                    place = path.relative_to(folder).as_posix()
                    if place == "results.json" or (form != "torch" and not place.startswith("program/")):
                        continue
                    self._add(f"{form}/{place}", folder, place, _mutation_of(path), _load_sealed_again)
            if form == "torch":
                self._add("torch/graph", folder, "program/model.pt2", mutated_graph, _load_sealed_again)

    def _model_files(self) -> None:
        from vivace.runtimes import source

        for name in ("torch/fast/program/model.pt2", "onnx/fast/program/model.onnx"):
            path = self._honest / name
            self._add(f"file/{path.name}", path.parent, path.name, _mutation_of(path), lambda folder, leaf=path.name: (  # type: ignore[misc]
                source.open_source(folder / leaf), source.example_inputs(folder / leaf)))  # fmt: skip

    def _records(self) -> None:
        from attacks import forging, records
        from vivace.api.request import options_of
        from vivace.cli.plans import plan_given
        from vivace.core.registry import techniques
        from vivace.core.workload import Workload
        from vivace.devices import ceiling_store
        from vivace.search.journal import Journal
        from vivace.search.trials import readable_trial

        base = self._honest / "records"
        records.write(base)

        def journal(folder: Path) -> None:
            with Journal(folder / "journal.jsonl") as opened:
                for record in opened.of_kind("trial"):
                    readable_trial(record.get("trial"), techniques())

        def ceilings(folder: Path) -> None:
            os.environ["XDG_CACHE_HOME"] = str(folder)
            ceiling_store.kept(records.MACHINE)

        def plan(folder: Path) -> None:
            work = Workload(forging.network(), inputs=(1,))
            options_of(work, plan=plan_given((folder / "plan.json").read_text(errors="replace")))

        (kept,) = base.rglob("*-torch-*.json")
        self._add("journal", base, "journal.jsonl", mutated_journal, journal)
        self._add("ceilings", base, kept.relative_to(base).as_posix(), _mutation_of(kept), ceilings)
        self._add("plan", base, "plan.json", _mutation_of(base / "plan.json"), plan)


def _load_sealed_again(folder: Path) -> object:
    import vivace as vv
    from attacks import forging

    with contextlib.suppress(ValueError, AttributeError, TypeError):
        forging.reseal(folder)  # impossible where the manifest itself was changed
    return vv.load(folder)


def _mutation_of(path: Path) -> Mutate:
    from attacks.mutations import mutated_bytes, mutated_text

    return mutated_text if path.suffix == ".json" else mutated_bytes


def mutated_graph(data: bytes, random: Random) -> bytes:
    """A .pt2 file with one of its JSON members changed, so that the archive stays whole."""
    import io

    from attacks.mutations import mutated_text

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = random.choice([name for name in sorted(members) if name.endswith(".json")])
    members[name] = mutated_text(members[name], random)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return written.getvalue()


def mutated_journal(data: bytes, random: Random) -> bytes:
    """A journal with one line changed; most of the time its checksum is right again."""
    from attacks.mutations import mutated_bytes, mutated_text

    lines = data.splitlines()
    number = random.randrange(len(lines))
    body = mutated_text(lines[number].partition(b" ")[2], random)
    lines[number] = b"%08x %s" % (zlib.crc32(body), body)
    whole = b"\n".join(lines) + b"\n"
    return mutated_bytes(whole, random) if random.randrange(4) == 0 else whole


if __name__ == "__main__":
    sys.exit(main())
