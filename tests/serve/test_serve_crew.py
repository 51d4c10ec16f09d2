"""The crew with workers that only pretend: who gets which batch, and what a death, a hang and a failure do to whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from vivace.core.errors import ArtifactError, EnvironmentFault
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure
from vivace.measure.clock import FakeClock
from vivace.serve.batching.queue import Dropped, Entry, Policy, Queue
from vivace.serve.protocol.model import Model
from vivace.serve.protocol.requests import Asked, Layout, Wanted
from vivace.serve.workers.arena import Arena
from vivace.serve.workers.crew import Crew, Failed, Inferred, shapes_key
from vivace.serve.workers.messages import Computed, Place

SPEC = TensorSpec("x", "float32", (None, 2), 0)
TENSOR = Structure("tensor")
MODEL = Model.of("m", Signature(Structure("dict", (TENSOR,), ("x",)), 1, (SPEC,), TENSOR, (SPEC,)))


class FalseHand:
    """A worker that computes nothing until it is told to."""

    def __init__(self, folder, arguments, on_ready, on_computed, on_ended, environment):
        self.given, self.taken = Arena.create(), Arena.create()
        self.pid = 1
        self.arguments = arguments
        self.ready = lambda: on_ready(self, {"digest": "d"})
        self.reply = lambda computed: on_computed(self, computed)
        self.end = lambda error=None: on_ended(self, error or EnvironmentFault("died"))
        self.sent: list[list[Place]] = []
        self.killed = self.closed = False

    def send(self, places):
        self.sent.append(places)

    def kill(self):
        self.killed = True

    def close(self):
        self.closed = True

    def join(self, seconds):
        pass

    def compute(self):
        """Answer the last batch with twice its input."""
        (place,) = self.sent[-1]
        values = np.frombuffer(self.given.map, np.float32, int(np.prod(place.shape)), place.offset)
        self.taken.write(0, (values * 2).tobytes())
        self.reply(Computed((Place(0, place.shape),), 0.001))


class Counts:
    def __init__(self):
        self.batches, self.drops, self.reruns, self.restarts = [], [], 0, 0

    def computed(self, samples, compute_seconds, queue_seconds):
        self.batches.append(samples)

    def dropped(self, why):
        self.drops.append(why)

    def rerun(self):
        self.reruns += 1

    def restarted(self):
        self.restarts += 1


class Asker:
    def __init__(self, values):
        rows = np.float32(values)
        layout = Layout(None, (rows.shape,), len(rows), (Wanted(0, True),), (0,), (rows.nbytes,), None)
        self.asked = Asked(layout, (rows.tobytes(),))
        self.ends = []

    def finish(self, end):
        self.ends.append(end)

    @property
    def answer(self):
        (end,) = self.ends
        assert isinstance(end, Inferred)
        return np.frombuffer(end.outputs[0], np.float32).reshape(end.shapes[0]).tolist()


class Scene:
    """A crew of false hands, its queue and a false clock."""

    def __init__(self, count=1, policy=Policy(most_samples=4)):  # noqa: B008
        self.clock, self.counts, self.hands = FakeClock(), Counts(), []
        self.crew = Crew(Path("a"), Path("b"), count, False, self.clock, self.counts, self._hire)
        self.queue = Queue(policy)
        self.hands[0].ready()
        self.crew.begin(MODEL, self.queue, "d")
        for hand in self.hands[1:]:
            hand.ready()

    def _hire(self, *given):
        self.hands.append(FalseHand(*given))
        return self.hands[-1]

    def ask(self, values, seconds=10.0, gone=lambda: False):
        asker = Asker(values)
        now = self.clock.now()
        layout = asker.asked.layout
        self.queue.offer(Entry(asker, shapes_key(layout.shapes), layout.samples, 8, now, now + seconds, gone))
        self.crew.ask()
        return asker

    async def settle(self):
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def play(story):
    """Run an asynchronous story to its end."""
    asyncio.run(story())


def test_requests_that_arrive_together_share_a_call_and_each_gets_its_own_rows():
    async def story():
        scene = Scene()
        one, other = scene.ask([[1, 2]]), scene.ask([[3, 4], [5, 6]])
        await scene.settle()
        scene.hands[0].compute()
        assert one.answer == [[2, 4]]
        assert other.answer == [[6, 8], [10, 12]]
        assert scene.counts.batches == [3]

    play(story)


def test_a_worker_gets_its_next_batch_when_it_has_answered_and_the_other_one_meanwhile():
    async def story():
        scene = Scene(count=2, policy=Policy(most_samples=1))
        askers = [scene.ask([[n, n]]) for n in range(3)]
        await scene.settle()
        assert [len(hand.sent) for hand in scene.hands] == [1, 1]
        scene.hands[1].compute()
        await scene.settle()
        assert [len(hand.sent) for hand in scene.hands] == [1, 2]
        scene.hands[0].compute()
        scene.hands[1].compute()
        assert [asker.answer for asker in askers] == [[[0, 0]], [[2, 2]], [[4, 4]]]

    play(story)


def test_a_failed_batch_is_computed_again_one_by_one_and_only_the_guilty_fails():
    async def story():
        scene = Scene()
        innocent, guilty = scene.ask([[1, 1]]), scene.ask([[2, 2]])
        await scene.settle()
        scene.hands[0].reply(Computed(failure="RuntimeError: index out of range"))
        await scene.settle()
        scene.hands[0].compute()
        await scene.settle()
        scene.hands[0].reply(Computed(failure="RuntimeError: index out of range"))
        assert innocent.answer == [[2, 2]]
        assert guilty.ends == [Failed("", "failed")]
        assert scene.counts.reruns == 1

    play(story)


def test_the_requests_of_a_worker_that_died_are_computed_by_its_successor_after_the_back_off():
    async def story():
        scene = Scene()
        asker = scene.ask([[1, 1]])
        await scene.settle()
        scene.hands[0].end()
        scene.crew.tick(30.0)
        assert len(scene.hands) == 1
        scene.clock.advance(0.1)
        scene.crew.tick(30.0)
        assert (len(scene.hands), scene.counts.restarts) == (2, 1)
        assert scene.hands[1].arguments["digest"] == "d"  # it must find the same artifact
        scene.hands[1].ready()
        await scene.settle()
        scene.hands[1].compute()
        assert asker.answer == [[2, 2]]

    play(story)


def test_a_request_that_kills_two_workers_is_told_so_and_not_tried_a_third_time():
    async def story():
        scene = Scene()
        asker = scene.ask([[1, 1]])
        await scene.settle()
        for _ in range(2):
            scene.hands[-1].end()
            scene.clock.advance(1.0)
            scene.crew.tick(30.0)
            scene.hands[-1].ready()
            await scene.settle()
        assert asker.ends == [Failed("", "worker died")]
        assert scene.hands[-1].sent == []

    play(story)


def test_a_worker_that_hangs_is_ended():
    async def story():
        scene = Scene()
        scene.ask([[1, 1]])
        await scene.settle()
        scene.clock.advance(5.1)
        scene.crew.tick(5.0)
        assert scene.hands[0].killed

    play(story)


def test_expired_and_disconnected_requests_are_never_sent_to_a_worker():
    async def story():
        scene = Scene(policy=Policy(most_samples=1))
        busy = scene.ask([[0, 0]])
        late = scene.ask([[1, 1]], seconds=1.0)
        gone = scene.ask([[2, 2]], gone=lambda: True)
        await scene.settle()
        scene.clock.advance(1.5)
        scene.crew.tick(30.0)
        assert late.ends == [Dropped.EXPIRED]
        assert gone.ends == [Dropped.DISCONNECTED]
        scene.hands[0].compute()
        await scene.settle()
        assert busy.answer == [[0, 0]]
        assert len(scene.hands[0].sent) == 1
        assert scene.counts.drops == [Dropped.EXPIRED, Dropped.DISCONNECTED]

    play(story)


def test_outputs_that_do_not_have_a_row_for_each_sample_are_computed_again_alone():
    async def story():
        scene = Scene()
        askers = [scene.ask([[n, n]]) for n in (1, 2)]
        await scene.settle()
        scene.hands[0].reply(Computed((Place(0, (1, 2)),), 0.001))
        for _ in askers:
            await scene.settle()
            scene.hands[0].compute()
        assert [asker.answer for asker in askers] == [[[2, 2]], [[4, 4]]]

    play(story)


def test_a_call_that_the_model_does_not_accept_is_told_to_its_client():
    async def story():
        scene = Scene()
        asker = scene.ask([[1, 1]])
        await scene.settle()
        scene.hands[0].reply(Computed(call_error="x has shape [9]; allowed is [any, 2]"))
        assert asker.ends == [Failed("x has shape [9]; allowed is [any, 2]", "call")]

    play(story)


def test_an_artifact_that_cannot_be_opened_is_the_error_of_the_start_and_nothing_is_restarted():
    async def story():
        hands = []

        def hire(*given):
            hands.append(FalseHand(*given))
            return hands[-1]

        clock = FakeClock()
        crew = Crew(Path("a"), Path("b"), 1, False, clock, Counts(), hire)
        hands[0].end(ArtifactError("damaged"))
        with pytest.raises(ArtifactError, match="damaged"):
            await crew.first_opened
        clock.advance(100.0)
        crew.tick(30.0)
        assert len(hands) == 1

    play(story)
