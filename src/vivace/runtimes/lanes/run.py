"""Runs a graph whose operators have lanes: one thread a lane, which waits only for what it needs of another.

Where lanes are stages, each needing only earlier ones, parts of a batch follow each other through them: a pipeline."""

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
from vivace.runtimes.instances import divided
from vivace.runtimes.lanes.schedule import pieces
from vivace.runtimes.program import Program
from vivace.runtimes.settings.around import Run, under_settings

OPTION = "lanes"
MOST = 9
"""Lanes: each is one digit of the option."""
PARTS, DEVICES = "parts", "devices"
"""Options: in how many parts a batch goes through the lanes, one after the other; `EACH`: a card for each lane."""
EACH, MOST_PARTS = "each", 256


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
    but results; each has as many threads as the settings say. With the option `parts` a batch of as many samples or
    more is answered in parts, each of which enters a lane as soon as that has done the part before.

    Raises ArtifactError where an option does not fit, and where there is no card for each lane."""
    text = str(model.settings.option(OPTION, ""))
    devices = _devices(model, int(max(text))) if text.isdecimal() else []
    program = model.program if devices else eager.placed(model.program, model.settings.device)
    graph = eager.copied_graph(program)
    nodes = operators_of(graph)
    if len(text) != len(nodes) or not text.isdigit() or max(text) > str(MOST - 1):
        raise ArtifactError(
            f"the program has {len(text)} lanes for its {len(nodes)} operators; allowed is a digit from 0 to "
            f"{MOST - 1} for each"
        )
    lanes = [int(digit) for digit in text]
    values = eager.lifted_values(program)
    crew = Crew(graph, nodes, lanes, program.graph_module, model.settings.threads, devices)
    crew.hold(values)
    run = under_settings(_in_parts(crew, values, model), model.settings)
    return Program(model.signature, model.settings, run, model.form, crew.close)


def _devices(model: Model, last: int) -> list[torch.device]:
    """The card of each lane; none where all are where the program is."""
    if model.settings.option(DEVICES, "") != EACH:
        return []
    count = torch.cuda.device_count()
    if count <= last:
        raise ArtifactError(f"the program asks for {last + 1} CUDA devices, one for each stage; PyTorch sees {count}")
    return [torch.device("cuda", lane) for lane in range(last + 1)]


def _in_parts(crew: Crew, values: Sequence[Any], model: Model) -> Run:
    """Calls of the crew, a batch in as many parts as the option says."""
    parts = model.settings.option(PARTS, 1)
    if not isinstance(parts, int) or isinstance(parts, bool) or not 1 <= parts <= MOST_PARTS:
        raise ArtifactError(f"the program asks for {parts!r} parts of a batch; allowed are 1 to {MOST_PARTS}")

    def alone(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return crew([*values, *leaves])

    if parts == 1:
        return alone
    return divided(model.signature, parts, alone, lambda some: crew.several([[*values, *part] for part in some]))


@dataclasses.dataclass
class _Piece:
    """Operators that run one after the other, as one function, and where its arguments come from: (piece, place in what
    it gives), or (-1, number of the graph's input)."""

    function: Callable[..., Any]
    sources: list[tuple[int, int]]


class Crew:
    """Threads, one a lane but the first, which is the caller's. `devices`: of each lane, where they differ."""

    def __init__(
        self, graph: fx.Graph, nodes: list[fx.Node], lanes: list[int], owner: torch.nn.Module, threads: int | None,
        devices: Sequence[torch.device] = (),
    ) -> None:  # fmt: skip
        self._devices = devices
        self._held: dict[tuple[int, int], Any] = {}
        numbers = pieces(lanes, needs_of(nodes))
        of = dict(zip(nodes, numbers, strict=True))
        self._lanes: dict[int, list[int]] = {lane: [] for lane in sorted({0, *lanes})}
        self._pieces: list[_Piece] = []
        inputs = {node: number for number, node in enumerate(graph.find_nodes(op="placeholder"))}
        places: dict[fx.Node, tuple[int, int]] = {node: (-1, number) for node, number in inputs.items()}
        for number in range(max(numbers, default=-1) + 1):
            mine = [node for node in nodes if of[node] == number]
            lane = lanes[nodes.index(mine[0])]
            self._lanes[lane].append(number)
            self._pieces.append(_made(mine, number, places, owner, devices[lane] if devices else None))
        answers: Any = graph.output_node().args[0]
        self._answers = [places[node] if isinstance(node, fx.Node) else node for node in answers]
        others = len(self._lanes) - 1
        self._team = ThreadPoolExecutor(others, "vivace-lane", _with(threads)) if others else None

    def hold(self, values: Sequence[Any]) -> None:
        """Keep what never changes (the first of the graph's inputs) on the device of each lane that needs it."""
        for lane, device in enumerate(self._devices):
            sources = [source for number in self._lanes.get(lane, ()) for source in self._pieces[number].sources]
            for number in {number for piece, number in sources if piece < 0 and number < len(values)}:
                self._held[lane, number] = _on(values[number], device)

    def __call__(self, values: Sequence[Any]) -> list[Tensor]:
        """The graph's outputs. Whatever an operator raises, on any lane."""
        return self.several([values])[0]

    def several(self, calls: Sequence[Sequence[Any]]) -> list[list[Tensor]]:
        """The outputs of several calls: a lane takes them one after the other, and waits for no lane that is behind."""
        results: list[list[Future[Any]]] = [[Future() for _ in self._pieces] for _ in calls]
        inference = torch.is_inference_mode_enabled()
        others = [self._team.submit(self._other, lane, calls, results, inference)
                  for lane in self._lanes if lane != 0 and self._team is not None]  # fmt: skip
        try:
            self._walk(0, calls, results)
        finally:
            for other in others:
                other.result()
        pairs = zip(calls, results, strict=True)
        return [[self._found(place, values, found, 0) for place in self._answers] for values, found in pairs]

    def close(self) -> None:
        """End the threads."""
        if self._team is not None:
            self._team.shutdown()

    def _other(
        self, lane: int, calls: Sequence[Sequence[Any]], results: list[list[Future[Any]]], inference: bool
    ) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(False):
            self._walk(lane, calls, results)

    def _walk(self, lane: int, calls: Sequence[Sequence[Any]], results: list[list[Future[Any]]]) -> None:
        """One lane's pieces; where one fails, all that follow it on the lane fail with it, so that nobody waits."""
        failure: BaseException | None = None
        for values, found in zip(calls, results, strict=True):
            for number in self._lanes[lane]:
                piece = self._pieces[number]
                try:
                    if failure is not None:
                        raise failure
                    given = [self._found(one, values, found, lane) for one in piece.sources]
                    found[number].set_result(piece.function(*given))
                except BaseException as error:  # noqa: BLE001  told to whoever waits for it, and raised by the answer
                    failure = error
                    found[number].set_exception(error)
        if failure is not None:
            raise failure

    def _found(self, place: Any, values: Sequence[Any], results: Sequence[Future[Any]], lane: int) -> Any:
        if not isinstance(place, tuple):
            return place
        piece, number = place
        if piece < 0 and (lane, number) in self._held:
            return self._held[lane, number]
        found = values[number] if piece < 0 else results[piece].result()[number]
        return _on(found, self._devices[lane]) if self._devices else found


def _on(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _with(threads: int | None) -> Callable[[], None]:
    def begin() -> None:
        if threads is not None:
            torch.set_num_threads(threads)

    return begin


def _made(
    mine: list[fx.Node], number: int, places: dict[fx.Node, tuple[int, int]], owner: torch.nn.Module,
    device: torch.device | None,
) -> _Piece:  # fmt: skip
    """The function of some operators, that gives those of its results which others need; what they make, they make on
    the device, if one is named."""
    inner = set(mine)
    graph = fx.Graph()
    given = dict.fromkeys(one for node in mine for one in node.all_input_nodes if one not in inner)
    copies: dict[fx.Node, fx.Node] = {one: graph.placeholder(f"given_{n}") for n, one in enumerate(given)}
    for node in mine:
        copies[node] = graph.node_copy(node, lambda one: copies[one])
        if device is not None and isinstance(node.kwargs.get("device"), torch.device):
            copies[node].kwargs = {**copies[node].kwargs, "device": device}
    wanted = [node for node in mine if any(user not in inner for user in node.users)]
    graph.output(tuple(copies[node] for node in wanted))
    sources = [places[one] for one in given]
    places |= {node: (number, place) for place, node in enumerate(wanted)}
    function = eager.compiled_graph(graph)
    return _Piece(lambda *values: function(owner, *values), sources)
