"""An environment that raises, hangs or answers nonsense loses its own game only."""

import signal
import time

import pytest
from toy_game import GuessNumber

from boost_trl import rollout
from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.rollout import summarize
from boost_trl.environments.time_limit import time_limit


NAN = float("nan")
# What `step` returns in the second turn of the broken game, and what its row says.
ANSWERS = {
    "no tuple": (None, "TypeError: cannot unpack"),
    "too few": (("Higher.", 0.0), "ValueError: not enough values"),
    "no text": ((None, 0.0, False, False, {}), "observation is None; it must be text"),
    "bytes": ((b"Higher.", 0.0, False, False, {}), "observation is b'Higher.'; it must be text"),
    "reward nan": (("Higher.", NAN, False, False, {}), "reward is nan; it must be a number"),
    "reward huge": (("Higher.", 1e300, False, False, {}), "reward is 1e.300; it must be a number"),
    "reward None": (("Higher.", None, False, False, {}), "reward is None; it must be a number"),
    "reward text": (("Higher.", "1", False, False, {}), "reward is '1'; it must be a number"),
    "terminated": (("Higher.", 0.0, "no", False, {}), "terminated is 'no'; it must be True or False"),
    "truncated": (("Higher.", 0.0, False, None, {}), "truncated is None; it must be True or False"),
    "info": (("Higher.", 0.0, True, False, None), "info is None; it must be a dict"),
    "score": (("Higher.", 0.0, True, False, {"score": "high"}), r"info\['score'\] is 'high'; it must be a number"),
}


class Broken(GuessNumber):
    """Answers as it should but in the second turn of the game of task 8."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def step(self, action):
        out = super().step(action)
        if self.task.id == "8" and self.count == 2:
            return self.answer() if callable(self.answer) else self.answer
        return out


def count_up(conversations):
    return [str(sum(m["role"] == "assistant" for m in conversation)) for conversation in conversations]


def play(env, ids="2803", **options):
    return rollout(count_up, env, list(ids), num_envs=2, progress=False, **options)


def check_others(rows, message):
    """Game 1 is lost with that message; the others are as they are without it."""
    good = play(GuessNumber())
    assert rows["error"][0] is rows["error"][2] is rows["error"][3] is None
    for column in ("messages", "rewards", "score", "success", "seed"):
        assert [rows[column][i] for i in (0, 2, 3)] == [good[column][i] for i in (0, 2, 3)]
    assert rows["score"][1] is None and rows["success"][1] is None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(rows["error"][1])
    assert summarize(rows)["errors"] == 1 and summarize(rows)["num_games"] == 3


@pytest.mark.parametrize("name", ANSWERS)
def test_nonsense(name):
    answer, message = ANSWERS[name]
    rows = play(Broken(answer))
    check_others(rows, message)
    assert rows["rewards"][1] == [-1.0] and len(rows["messages"][1]) == 4 and not rows["terminated"][1]
    validate_trajectories(rows)


def hang():
    time.sleep(60)


def spin():
    while True:
        pass


def stubborn():
    """Takes the end of its time for a hiccup, once."""
    try:
        time.sleep(60)
    except Exception:
        time.sleep(60)


def leave():
    raise SystemExit("quit")


@pytest.mark.parametrize("answer", [hang, spin, stubborn])
def test_hanging(answer):
    start = time.monotonic()
    rows = play(Broken(answer), step_timeout=0.2)
    check_others(rows, "TimeoutError: a step of the environment took longer than 0.2 s")
    assert time.monotonic() - start < 10


def test_leaving():
    check_others(play(Broken(leave)), "SystemExit: quit")


def test_a_start_that_hangs_or_is_nonsense():
    class Start(GuessNumber):
        def reset(self, *, seed=None, task=None):
            observation, info = super().reset(seed=seed, task=task)
            return hang() if task.id == "8" else (observation, info)

    check_others(play(Start(), step_timeout=0.2), "TimeoutError: the start of the environment took longer than 0.2 s")

    class Nothing(GuessNumber):
        def reset(self, *, seed=None, task=None):
            observation, info = super().reset(seed=seed, task=task)
            return None if task.id == "8" else (observation, info)

    check_others(play(Nothing()), "TypeError: cannot unpack")


def test_an_environment_that_cannot_be_made_again():
    made = []

    def make():
        made.append(1)
        if len(made) == 2:
            raise ConnectionError("no more shops")
        return GuessNumber()

    check_others(play(make), "ConnectionError: no more shops")


def test_one_that_hangs_when_it_is_closed(caplog):
    class Closing(GuessNumber):
        def close(self):
            hang()

    rows = play(Closing(), step_timeout=0.2)
    assert set(rows["error"]) == {None} and "could not be closed: TimeoutError" in caplog.text


def test_info_of_another_type_in_one_game(caplog):
    class Info(GuessNumber):
        def _info(self, valid):
            info = super()._info(valid)
            return info | (
                {"mood": 3, "luck": "none", "size": 10**30, 5: 1} if self.task.id == "8" else {"mood": "good"}
            )

    rows = play(Info())
    assert rows["mood"] == ["good", None, "good", "good"] and "info['mood'] is left out of 1 games" in caplog.text
    assert rows["luck"] == [7, 7, 7, 7] and "size" not in rows.column_names


def test_an_alarm_that_is_set_already_is_kept():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with time_limit(0.01, "this"):
            time.sleep(0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == [1]


def test_limits_that_are_none():
    with pytest.raises(ValueError, match="`step_timeout` must be a positive number of seconds or None, got 0"):
        play(GuessNumber(), step_timeout=0)
    assert play(GuessNumber(), step_timeout=None)["error"] == [None] * 4
