"""Runs a graph whose operators have lanes: one thread a lane, which waits only for what it needs of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.errors import ArtifactError
from vivace.core.program import Model
from vivace.runtimes import eager
from vivace.runtimes.lanes.schedule import pieces
from vivace.runtimes.program import Program
from vivace.runtimes.settings.around import under_settings

OPTION = "lanes"
MOST = 9
"""Lanes: each is one digit of the option."""


def operators_in(program: ExportedProgram) -> list[fx.Node]:
    """The operators of a program's graph, in the order that the option counts them in."""
    return operators_of(eager.copied_graph(program))


def operators_of(graph: fx.Graph) -> list[fx.Node]:
    """What a graph computes: all but its inputs and outputs."""
    return [node for node in graph.nodes if node.op not in ("placeholder", "output")]


def needs_of(nodes: Sequence[fx.Node]) -> list[list[int]]:
    """Which of the operators each one takes results of."""
    numbers = {node: number for number, node in enumerate(nodes)}
    return [[numbers[given] for given in node.all_input_nodes if given in numbers] for node in nodes]


def text_of(lanes: Sequence[int]) -> str:
    """Lanes as the option holds them.

    >>> text_of([0, 1, 0])
    '010'
    """
    return "".join(map(str, lanes))


def load(model: Model) -> Program:
    """A program of an exported graph whose option `lanes` says which lane each operator runs on. Lanes share nothing
    but results; each has as many threads as the settings say. Raises ArtifactError where the option does not fit."""
    program = eager.placed(model.program, model.settings.device)
    graph = eager.copied_graph(program)
    nodes = operators_of(graph)
    text = str(model.settings.option(OPTION, ""))
    if len(text) != len(nodes) or not text.isdigit() or max(text) > str(MOST - 1):
        raise ArtifactError(
            f"the program has {len(text)} lanes for its {len(nodes)} operators; allowed is a digit from 0 to "
            f"{MOST - 1} for each"
        )
    crew = Crew(graph, nodes, [int(digit) for digit in text], program.graph_module, model.settings.threads)
    values = eager.lifted_values(program)
    run = under_settings(lambda leaves: crew([*values, *leaves]), model.settings)
    return Program(model.signature, model.settings, run, model.form, crew.close)


@dataclasses.dataclass
class _Piece:
    """Operators that run one after the other, as one function, and where its arguments come from: (piece, place in what
    it gives), or (-1, number of the graph's input)."""

    function: Callable[..., Any]
    sources: list[tuple[int, int]]


class Crew:
    """Threads, one a lane but the first, which is the caller's."""

    def __init__(
        self, graph: fx.Graph, nodes: list[fx.Node], lanes: list[int], owner: torch.nn.Module, threads: int | None
    ) -> None:
        numbers = pieces(lanes, needs_of(nodes))
        of = dict(zip(nodes, numbers, strict=True))
        self._lanes: dict[int, list[int]] = {lane: [] for lane in sorted({0, *lanes})}
        self._pieces: list[_Piece] = []
        inputs = {node: number for number, node in enumerate(graph.find_nodes(op="placeholder"))}
        places: dict[fx.Node, tuple[int, int]] = {node: (-1, number) for node, number in inputs.items()}
        for number in range(max(numbers, default=-1) + 1):
            mine = [node for node in nodes if of[node] == number]
            self._lanes[lanes[nodes.index(mine[0])]].append(number)
            self._pieces.append(_made(mine, number, places, owner))
        answers: Any = graph.output_node().args[0]
        self._answers = [places[node] if isinstance(node, fx.Node) else node for node in answers]
        others = len(self._lanes) - 1
        self._team = ThreadPoolExecutor(others, "vivace-lane", _with(threads)) if others else None

    def __call__(self, values: Sequence[Any]) -> list[Tensor]:
        """The graph's outputs. Whatever an operator raises, on any lane."""
        results: list[Future[Any]] = [Future() for _ in self._pieces]
        inference = torch.is_inference_mode_enabled()
        others = [self._team.submit(self._other, lane, values, results, inference)
                  for lane in self._lanes if lane != 0 and self._team is not None]  # fmt: skip
        try:
            self._walk(0, values, results)
        finally:
            for other in others:
                other.result()
        return [_found(place, values, results) for place in self._answers]

    def close(self) -> None:
        """End the threads."""
        if self._team is not None:
            self._team.shutdown()

    def _other(self, lane: int, values: Sequence[Any], results: list[Future[Any]], inference: bool) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(False):
            self._walk(lane, values, results)

    def _walk(self, lane: int, values: Sequence[Any], results: list[Future[Any]]) -> None:
        """One lane's pieces; where one fails, all that follow it on the lane fail with it, so that nobody waits."""
        failure: BaseException | None = None
        for number in self._lanes[lane]:
            piece = self._pieces[number]
            try:
                if failure is not None:
                    raise failure
                results[number].set_result(piece.function(*[_found(one, values, results) for one in piece.sources]))
            except BaseException as error:  # noqa: BLE001  told to whoever waits for it, and raised by the answer
                failure = error
                results[number].set_exception(error)
        if failure is not None:
            raise failure


def _found(place: Any, values: Sequence[Any], results: Sequence[Future[Any]]) -> Any:
    if not isinstance(place, tuple):
        return place
    piece, number = place
    return values[number] if piece < 0 else results[piece].result()[number]


def _with(threads: int | None) -> Callable[[], None]:
    def begin() -> None:
        if threads is not None:
            torch.set_num_threads(threads)

    return begin


def _made(mine: list[fx.Node], number: int, places: dict[fx.Node, tuple[int, int]], owner: torch.nn.Module) -> _Piece:
    """The function of some operators, that gives those of its results which others need."""
    inner = set(mine)
    graph = fx.Graph()
    given = dict.fromkeys(one for node in mine for one in node.all_input_nodes if one not in inner)
    copies: dict[fx.Node, fx.Node] = {one: graph.placeholder(f"given_{n}") for n, one in enumerate(given)}
    for node in mine:
        copies[node] = graph.node_copy(node, lambda one: copies[one])
    wanted = [node for node in mine if any(user not in inner for user in node.users)]
    graph.output(tuple(copies[node] for node in wanted))
    sources = [places[one] for one in given]
    places |= {node: (number, place) for place, node in enumerate(wanted)}
    function = eager.compiled_graph(graph)
    return _Piece(lambda *values: function(owner, *values), sources)
