"""The shape of the package: floors, cycles, sizes, what may be imported where, by the picture in ARCHITECTURE.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import architecture as shape

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "src" / "vivace"
SOURCES = shape.read_package(FOLDER)
FLOORS = shape.read_floors((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
OUTSIDE_MEASURE = [source for source in SOURCES if source.room != "measure"]
IN_CORE = [source for source in SOURCES if source.room == "core"]


def breaches(rule, sources=SOURCES):
    return [found for source in sources for found in rule(source)]


def test_imports_run_downward_only():
    assert breaches(lambda source: shape.floor_breaches(source, FLOORS)) == []


def test_folders_of_techniques_never_import_one_another():
    assert breaches(shape.technique_breaches) == []


def test_no_modules_import_each_other_in_a_circle():
    assert shape.cycle(SOURCES) == []


def test_every_room_on_disk_is_in_the_picture_and_the_other_way_round():
    assert {source.room for source in SOURCES} - {""} == set(FLOORS)


def test_folders_are_at_most_two_deep():
    assert [str(s.path) for s in SOURCES if len(s.path.parts) - 1 > shape.MAX_DEPTH] == []


def test_a_folder_holds_at_most_twenty_files():
    folders = [source.path.parent for source in SOURCES]
    assert {str(f) for f in folders if folders.count(f) > shape.MAX_FILES} == set()


def test_files_are_short():
    long = {str(s.path): s.text.count("\n") for s in SOURCES if s.text.count("\n") > shape.MAX_LINES}
    assert long == {}


def test_functions_are_short():
    assert breaches(shape.long_functions) == []


def test_every_file_says_in_its_first_line_what_it_is_for():
    assert [str(s.path) for s in SOURCES if not s.text.startswith(('"""', 'r"""')) or len(s.text) < 20] == []


def test_no_file_or_folder_has_a_name_that_could_hold_anything():
    assert [str(s.path) for s in SOURCES if shape.FORBIDDEN_NAMES & {*s.path.parent.parts, s.path.stem}] == []


def test_only_the_pipe_to_our_own_child_pickles():
    elsewhere = [source for source in SOURCES if source.path.as_posix() not in shape.PICKLING_FILES]
    assert breaches(lambda source: shape.import_breaches(source, shape.is_pickler), elsewhere) == []
    assert breaches(shape.torch_pickles) == []


def test_only_serving_imports_the_network():
    rooms, pairs = shape.NETWORKED_ROOMS, shape.SOCKET_PAIR_FILES
    elsewhere = [s for s in SOURCES if s.room not in rooms and s.path.as_posix() not in pairs]
    assert breaches(lambda source: shape.import_breaches(source, shape.is_network), elsewhere) == []


def test_only_measure_reads_the_clocks_that_measure():
    assert breaches(shape.timers, OUTSIDE_MEASURE) == []


def test_core_needs_the_standard_library_only():
    assert breaches(shape.outside_imports, IN_CORE) == []


def test_a_handler_of_everything_says_why():
    assert breaches(shape.broad_excepts) == []


def test_importing_the_package_does_not_import_torch():
    code = "import sys, vivace; print({'torch', 'numpy', 'onnx', 'rich', 'typer', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("set()\n", "", 0)


# Each rule is seen to fail, on a planted file.
PLANTED = {
    "an import upward": ("core/x.py", "from vivace.search import race", "floors"),
    "an import sideways": ("measure/x.py", "import vivace.runtimes.store", "floors"),
    "an import sideways inside a function": ("data/x.py", "def f():\n    from vivace import measure", "floors"),
    "an import for types only": ("core/x.py", "if TYPE_CHECKING:\n    from vivace.api import y", "floors"),
    "an import of the front": ("search/x.py", "import vivace", "floors"),
    "a relative import upward": ("devices/x.py", "from ..measure import clock", "floors"),
    "a room that the picture lacks": ("extras/x.py", "", "floors"),
    "techniques importing each other": (
        "techniques/compile/x.py",
        "from vivace.techniques.precision.y import Y",
        "techniques",
    ),
    "a pickle": ("data/x.py", "def f():\n    import pickle", "pickle"),
    "a socket": ("api/x.py", "from urllib.request import urlopen", "network"),
    "a timer": ("search/x.py", "import time\nstart = time.perf_counter()", "timers"),
    "a timer by name": ("search/x.py", "from time import monotonic", "timers"),
    "torch.load": ("runtimes/x.py", "torch.load(path)", "torch.load"),
    "a bare except": ("api/x.py", "try:\n    f()\nexcept:\n    pass\n", "except"),
    "an unexplained except": ("api/x.py", "try:\n    f()\nexcept Exception:  # noqa: BLE001\n    pass\n", "except"),
    "torch in core": ("core/x.py", "import torch", "core"),
}
RULES = {
    "floors": lambda source: shape.floor_breaches(source, FLOORS),
    "techniques": shape.technique_breaches,
    "pickle": lambda source: shape.import_breaches(source, shape.is_pickler),
    "network": lambda source: shape.import_breaches(source, shape.is_network),
    "timers": shape.timers,
    "torch.load": shape.torch_pickles,
    "except": shape.broad_excepts,
    "core": shape.outside_imports,
}
MODULES = frozenset({"vivace.measure", "vivace.measure.clock", "vivace.runtimes.store", "vivace.search"})


@pytest.mark.parametrize(("path", "text", "rule"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_breach_is_found(path, text, rule):
    source = shape.Source(Path(path), text, MODULES)
    assert len(RULES[rule](source)) == 1


def test_a_planted_cycle_is_found():
    modules = frozenset({"vivace.a", "vivace.b"})
    one = shape.Source(Path("a.py"), "import vivace.b", modules)
    other = shape.Source(Path("b.py"), "def f():\n    import vivace.a", modules)
    assert set(shape.cycle([one, other])) == modules


def test_an_explained_handler_is_accepted():
    text = "try:\n    f()\nexcept Exception as error:  # noqa: BLE001 - a converter may raise anything\n    g(error)\n"
    assert shape.broad_excepts(shape.Source(Path("runtimes/x.py"), text, MODULES)) == []
