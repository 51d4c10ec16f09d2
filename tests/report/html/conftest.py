"""The made-up documents that the page's tests share."""

from __future__ import annotations

import planted_results
import pytest

from vivace.report.results import ResultDocument


@pytest.fixture(scope="session")
def rich() -> ResultDocument:
    """A result with every figure filled."""
    return planted_results.rich()


@pytest.fixture(scope="session")
def kept() -> ResultDocument:
    """A result in which no plan was tried and the original was kept."""
    return planted_results.kept()
