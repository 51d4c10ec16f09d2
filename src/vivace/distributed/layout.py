"""The layout: into how many copies, shards, tensor parts and stages a training's processes divide a model."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

from vivace.core.errors import UsageError, unknown_name

SCHEDULES = ("1f1b", "gpipe")
AXES = ("pipeline", "data", "shard", "tensor")
"""The axes of a mesh from the outermost: ranks that talk most are next to each other."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How processes are arranged: their number is the product of the first four.

    `data` copies of the model, `shard` processes that hold a part of every parameter each, `tensor` processes that
    compute a part of every pair of linear layers, `pipeline` stages that follow one another, with batches cut into
    `micro` parts that pass through them in the order of `schedule` ("1f1b" or "gpipe").

    >>> Layout.read("data=2,tensor=2").processes
    4
    """

    data: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    micro: int = 4
    schedule: str = "1f1b"

    def __post_init__(self) -> None:
        for name in (*AXES, "micro"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"the layout has {name}={value!r}; allowed is a whole number of 1 or more")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"the layout has schedule={self.schedule!r}; allowed are {', '.join(SCHEDULES)}")

    @staticmethod
    def read(text: str) -> Layout:
        """A layout as users type it: `data=2,shard=2`. Raises UsageError."""
        given: dict[str, int | str] = {}
        known = [field.name for field in dataclasses.fields(Layout)]
        for word in filter(None, (word.strip() for word in text.split(","))):
            name, equals, value = word.partition("=")
            if name not in known:
                raise unknown_name("part of a layout", name, known)
            if name in given:
                raise UsageError(f"the layout {text!r} has {name} twice; give it once")
            if name == "schedule" and equals:
                given[name] = value
            elif value.isdecimal():
                given[name] = int(value)
            else:
                raise UsageError(f"the layout has {word!r}; allowed is {name}=NUMBER, as in data=2,tensor=2")
        return Layout(**given)  # type: ignore[arg-type]

    @staticmethod
    def of(given: str | Layout | None, processes: int) -> Layout:
        """The layout for so many processes: copies of the model unless something else is given; what it leaves open is
        filled with copies. Raises UsageError where the numbers do not divide.

        >>> Layout.of("tensor=2", 4).sizes()
        {'data': 2, 'tensor': 2}
        """
        layout = given if isinstance(given, Layout) else Layout.read(given or "")
        left, over = divmod(processes, layout.processes)
        if over or left < 1:
            raise UsageError(
                f"the layout {layout} is for {layout.processes} processes, which do not divide {processes}; allowed "
                f"are numbers whose product divides {processes}: {_divisors(processes)} for one axis"
            )
        return dataclasses.replace(layout, data=layout.data * left)

    def left_to(self, processes: int) -> Layout:
        """The layout for as many of its processes as are left: its own axes with more or fewer copies if these divide
        them, else the one that keeps a model in as many parts as can be. Tensor parts become a divisor of what they
        were, since that divides the same widths; stages become fewer; what is over are copies.

        >>> [str(Layout(shard=4).left_to(count)) for count in (3, 1)]
        ['shard=3', 'data=1']
        >>> [str(Layout(data=2, tensor=2).left_to(count)) for count in (2, 3)]
        ['tensor=2', 'data=3']
        """
        split = self.processes // self.data
        if processes % split == 0:
            return dataclasses.replace(self, data=processes // split)
        found = [
            one for one in Layout.every(processes)
            if self.tensor % one.tensor == 0 and one.pipeline <= self.pipeline and (self.shard > 1 or one.shard == 1)
        ]  # fmt: skip
        best = max(found, key=lambda one: (-one.data, one.pipeline, one.tensor))
        return dataclasses.replace(best, micro=self.micro, schedule=self.schedule)

    @staticmethod
    def every(processes: int) -> list[Layout]:
        """Every way to arrange so many processes along the four axes; a pipeline has the micro-batches and the schedule
        that it has unless others are asked for.

        >>> [str(one) for one in Layout.every(2)]
        ['data=2', 'shard=2', 'tensor=2', 'pipeline=2,micro=4,schedule=1f1b']
        """
        sizes = [number for number in range(1, processes + 1) if processes % number == 0]
        four = itertools.product(sizes, repeat=len(AXES))
        found = (Layout(data, shard, tensor, pipeline) for pipeline, tensor, shard, data in four)
        return [layout for layout in found if layout.processes == processes]

    @property
    def processes(self) -> int:
        """How many there are."""
        return math.prod(getattr(self, axis) for axis in AXES)

    @property
    def copies(self) -> int:
        """In how many parts a batch is divided."""
        return self.data * self.shard

    def sizes(self) -> Mapping[str, int]:
        """The axes along which there is more than one process."""
        return {axis: getattr(self, axis) for axis in AXES if getattr(self, axis) > 1}

    def __str__(self) -> str:
        told = [f"{axis}={size}" for axis, size in self.sizes().items()] or ["data=1"]
        if self.pipeline > 1:
            told += [f"micro={self.micro}", f"schedule={self.schedule}"]
        return ",".join(told)


def _divisors(number: int) -> str:
    return ", ".join(str(one) for one in range(1, number + 1) if number % one == 0)
