"""The open tools: what compiles itself at its first start is started once, alone, before several start at once."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest

from vivace.core.errors import EnvironmentFault
from vivace.hardware.chip import tools
from vivace.hardware.chip.crew import crew

PACKAGE = '''
from pathlib import Path


def run(arguments):
    """Keeps what it compiled, as the wheels' runtime does, and counts how often it was started."""
    home = Path(__file__).parent
    (home / "starts.txt").open("a").write(" ".join(arguments) + "\\n")
    kept = home / "cache" / "a_slow_tool" / "a.wasm"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "digest").write_text("machine code")
    return 0
'''


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a_slow_tool.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_a_tool_is_cold_until_it_has_compiled_itself(home):
    tool = tools.Tool("a_slow_tool", "run", "a-slow-tool")
    assert tools.cold(tool) == [tool]

    tools.warm(tool)

    assert tools.cold(tool) == []
    assert (home / "starts.txt").read_text() == "--version\n"


def test_a_tool_from_path_needs_no_compiling(home):
    assert tools.cold(tools.Tool("a_package_that_is_nowhere", "run", "a-program")) == []


def test_a_tool_that_takes_too_long_is_stopped_with_what_to_do(home):
    (home / "a_slow_tool.py").write_text("import threading\n\n\ndef run(arguments):\n    threading.Event().wait()\n")

    with pytest.raises(EnvironmentFault, match=r"a-slow-tool did not end within 1 s; give more time \(--time\)"):
        tools.run(tools.Tool("a_slow_tool", "run", "a-slow-tool"), [], home, 1.0)


def test_a_tool_that_takes_too_long_ends_with_all_that_it_started(tmp_path):
    driver = tmp_path / "driver"
    driver.write_text("#!/bin/sh\nsleep 300 &\necho $! > started\nwait\n")
    driver.chmod(0o755)

    with pytest.raises(EnvironmentFault, match=r"driver did not end within 2 s; give more time \(--time\)"):
        tools.execute(driver, [], 2.0)

    started = [one for one in psutil.process_iter() if one.pid == int((tmp_path / "started").read_text())]
    _, left = psutil.wait_procs(started, timeout=30)
    assert [one.status() for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


def test_work_that_is_given_up_ends_the_tools_of_all_threads_and_starts_no_other(tmp_path):
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\ntouch "began_$1"\nmkfifo "never_$1"\nread line < "never_$1"\n')
    slow.chmod(0o755)
    jobs = []

    with pytest.raises(KeyboardInterrupt), crew(1) as pool:
        jobs = [pool.submit(tools.execute, slow, [str(number)], 60.0) for number in range(2)]
        while not (tmp_path / "began_0").exists():
            assert not jobs[0].done(), jobs[0].result()
            threading.Event().wait(0.02)
        raise KeyboardInterrupt

    with pytest.raises(EnvironmentFault, match="slow failed with code -9"):
        jobs[0].result(0)
    assert jobs[1].cancelled()
    assert not (tmp_path / "began_1").exists()
