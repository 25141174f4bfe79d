"""When requests are sent."""

from __future__ import annotations

import pytest
from chat_server import Raw, completion, serve

from sora_cli.plugin.protocols import CaptionQuestion
from sora_cli.text.chat import Conversation, Service
from sora_plugins.captioners.service import MOST_WAIT, Options, Pace, ServiceCaptioner


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_so_many_a_minute():
    clock = Clock()
    pace = Pace(30, clock, clock.sleep)
    times = []
    for _ in range(3):
        pace.wait()
        times.append(clock.now)
    assert times == [0, 2, 4]
    clock.now = 60  # time that was not used is not made up for
    pace.wait()
    pace.wait()
    assert clock.now == 62


def test_without_a_limit_nobody_waits_but_in_pauses():
    clock = Clock()
    pace = Pace(None, clock, clock.sleep)
    pace.wait()
    assert clock.now == 0
    pace.pause(20)
    pace.pause(5)
    pace.wait()
    assert clock.now == 20


def test_back_off_grows_up_to_a_limit():
    clock = Clock()
    pace = Pace(None, clock, clock.sleep)
    for tries in range(1, 12):
        pace.back_off(tries)
    for tries, seconds in enumerate(clock.slept):
        assert 0.75 * min(MOST_WAIT, 0.5 * 2**tries) <= seconds <= min(MOST_WAIT, 0.5 * 2**tries)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ((("Retry-After", "17"),), 17, 17),
        ((("Retry-After-Ms", "2500"), ("Retry-After", "17")), 2.5, 2.5),
        ((("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"),), 0, 0),
        ((("Retry-After", "soon"),), 0.375, 0.5),
        ((), 0.375, 0.5),
    ],
)
def test_the_service_says_how_long_to_wait(headers, least, most):
    clock = Clock()
    answers = iter([Raw("{}", 429, headers=headers), completion("fine")])
    with serve(lambda question: next(answers)) as chat:
        conversation = Conversation(Service("m", chat.url, 30, "none"))
        captioner = ServiceCaptioner(conversation, Options(), Pace(None, clock, clock.sleep))
        (answer,) = captioner([CaptionQuestion("what?")])
    assert (answer.text, answer.requests) == ("fine", 2)
    assert least <= clock.now <= most
