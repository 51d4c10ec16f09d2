"""What the documents say is true: their code runs, their links lead somewhere, their commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import documents
import vivace

ROOT = Path(__file__).resolve().parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
COMMANDS = [command for page in (README, CONTRIBUTING, *GUIDE) for command in documents.commands(page)]
VERBS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
TOOL = str(Path(sys.executable).parent / "vivace")


def run(command: list[str], folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)


def test_the_technique_of_contributing_works(workbench):
    technique, test = (block.code for block in documents.blocks(CONTRIBUTING, "python"))
    (workbench / "tanh_gelu.py").write_text(technique)
    (workbench / "test_tanh_gelu.py").write_text(test.replace("vivace.techniques.rewrite.tanh_gelu", "tanh_gelu"))
    contract = "import tanh_gelu, vivace.testing.contract as c; c.check_technique(tanh_gelu.TanhGelu)"
    for words in (["-m", "pytest", "-q", "test_tanh_gelu.py"], ["-c", contract]):
        done = run([sys.executable, *words], workbench, 120)
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.slow
def test_the_python_of_the_readme_runs(workbench):
    code = documents.script(README).replace('time="5m"', 'time="20s"')
    (workbench / "page.py").write_text(code)
    done = run([sys.executable, "page.py"], workbench, 280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (workbench / "fast" / "manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in GUIDE if documents.script(p)], ids=lambda page: page.stem)
def test_the_python_of_the_guide_runs(page, workbench):
    (workbench / "page.py").write_text(documents.script(page))
    done = run([sys.executable, "page.py"], workbench, 280)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_a_page_of_the_guide_is_short_enough_to_read(page):
    assert page.read_text(encoding="utf-8").count("\n") <= 120


def test_every_page_of_the_guide_is_in_its_contents():
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.stem for page in GUIDE if f"guide/{page.stem}\n" not in contents] == []


def test_the_guide_builds_without_a_dead_link(tmp_path):
    pytest.importorskip("sphinx", reason="the guide is built with sphinx, of the extra dev")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "built")]
    done = run(build, ROOT, 200)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page):
    assert documents.broken_links(page) == []


def test_the_chinese_readme_is_in_step_with_the_english_one():
    english, chinese = (page.read_text(encoding="utf-8") for page in (README, ROOT / "README.zh.md"))
    for what in (
        r"^#+ ",
        r"```\w*\n.*?```",
        r"^\| [0-9]+ \|",
        r"^- ",
        r"<!-- results: begin.*?results: end -->",
        r"<!-- older processor: begin.*?older processor: end -->",
    ):
        flags = re.MULTILINE | re.DOTALL
        assert re.findall(what, chinese, flags) == re.findall(what, english, flags), what
    names = re.compile(r"`[^`\n]+`")
    assert set(names.findall(english)) - set(names.findall(chinese)) <= {'vivace.optimize(time="2m")'}


def test_make_verbs_in_documents_exist():
    named = {word for command in COMMANDS if command[0] == "make" for word in command[1:] if "=" not in word}
    assert named - set(VERBS) == set()


def test_the_makefile_has_the_verbs_that_ci_and_people_use():
    assert {"setup", "demo", "test", "test-all", "check", "bench", "clean"} <= set(VERBS)


VIVACE_COMMANDS = [command for command in COMMANDS if command[0] == "vivace"]


@pytest.mark.parametrize("command", VIVACE_COMMANDS, ids=" ".join)
def test_vivace_verbs_and_flags_in_documents_exist(command, workbench):
    flags = [word for word in command if word.startswith("--")]
    done = run([TOOL, command[1], "--help"], workbench, 60)
    assert done.returncode == 0, done.stderr
    assert [flag for flag in flags if flag not in done.stdout] == []


def test_files_that_commands_name_exist():
    named = {word.split(":")[0] for command in COMMANDS for word in command if re.search(r"\.py(:\w+)?$", word)}
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_changelog_has_this_version():
    assert f"\n## {vivace.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_architecture_says_of_every_room_what_it_is_not_for():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {entry.parent.name for entry in (ROOT / "src" / "vivace").glob("*/__init__.py")}
    assert set(re.findall(r"^- \*\*(\w+)\*\*:", page, flags=re.MULTILINE)) == rooms


def test_architecture_is_one_page():
    assert (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").count("\n") <= 100


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_gives_context_choice_and_what_was_rejected_in_under_a_page(page):
    text = page.read_text(encoding="utf-8")
    assert [h for h in ("## Context", "## Choice", "## Rejected") if h not in text] == []
    assert text.count("\n") <= 60


def test_what_ci_adds_to_the_environment_is_pinned_like_everything_else():
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    added = re.findall(r"pip install .*-c constraints\.txt (\S+?);", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert added == ["libtpu"]
    assert set(added) <= pins


def test_every_version_in_the_constraints_is_pinned_and_names_no_place():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line)] == []
