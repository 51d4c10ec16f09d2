"""all-MiniLM-L6-v2 with its published weights, 16 passages a call; the task and the data are those of text_encoder."""

from __future__ import annotations

import vivace as vv
from workloads import text_encoder

BUDGET = text_encoder.BUDGET


def workload() -> vv.Workload:
    return text_encoder.workload(batch=16, name="text-encoder-16")
