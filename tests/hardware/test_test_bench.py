"""The test bench that lies beside a design: any simulator takes it, and it tells a wrong answer."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from vivace.hardware.rtl.bench import files_of
from vivace.hardware.rtl.plan import plan_of
from vivace.hardware.rtl.top import design_of

WORDS = """
alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins binsof bit
break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const constraint
context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge else end
endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule endpackage
endprimitive endprogram endproperty endspecify endsequence endtable endtask enum event eventually expect export
extends extern final first_match for force foreach forever fork forkjoin function generate genvar global highz0
highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input inside
instance int integer interconnect interface intersect join join_any join_none large let liblist library local
localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""
RESERVED = frozenset(WORDS.split())
"""IEEE 1800-2017, annex B, which holds those of Verilog-2001 too."""
DECLARED = re.compile(
    r"^\s*(?:input|output)?\s*(?:reg|wire|integer)\b\s*(?:signed\s*)?(?:\[[^\]]*\]\s*)?([^;=(\n]+)", re.M
)
INSTANCE = re.compile(r"^\s*(vivace_\w+)\s+(\w+)\s*\(", re.M)


@pytest.fixture
def written(residual, drawn):
    lanes = {0: 3, 2: 4}
    return files_of(design_of(plan_of(residual, lanes)), residual, drawn(residual, 16) * residual.input.scale)


def test_no_name_is_a_word_of_verilog_or_systemverilog(written):
    texts = [text for name, text in written.items() if name.endswith(".v")]
    names = {
        re.split(r"[\s\[]", one.strip())[0]
        for text in texts
        for declared in DECLARED.findall(text)
        for one in declared.split(",")
    }
    names |= {name for text in texts for _, name in INSTANCE.findall(text)}

    assert {"dut", "offset", "clk", "given"} <= names
    assert sorted(names & RESERVED) == []


@pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is not installed: apt-get install iverilog"
)
@pytest.mark.parametrize("standard", ["2001", "2012"])
def test_it_runs_as_it_says_and_tells_a_wrong_answer(written, tmp_path, standard):
    def run(**changed):
        for name, text in {**written, **changed}.items():
            (tmp_path / name).write_text(text)
        files = sorted(str(file) for file in tmp_path.glob("*.v"))
        subprocess.run(["iverilog", f"-g{standard}", "-o", "bench", *files], cwd=tmp_path, check=True)
        return subprocess.run(["vvp", "bench"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert "PASS: 16 vectors" in run()
    answers = written["vivace_tb_outputs.hex"].split()
    answers[5] = f"{int(answers[5], 16) ^ 1:0{len(answers[5])}x}"
    wrong = run(**{"vivace_tb_outputs.hex": "\n".join(answers) + "\n"})
    assert "output element 5" in wrong
    assert "FAIL" in wrong
