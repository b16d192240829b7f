import pytest

from boost_trl.trainer.offline_rl.schedule import BilevelSchedule, Phase


def test_phases_follow_each_other_by_whole_policy_updates():
    schedule = BilevelSchedule(auxiliary_steps=3, primary_steps=2, max_steps=10, alpha_init=0.0, alpha_final=2.0)
    phases = [schedule.phase(step) for step in range(10)]
    assert phases == [Phase.AUXILIARY] * 3 + [Phase.PRIMARY] * 2 + [Phase.AUXILIARY] * 3 + [Phase.PRIMARY] * 2
    assert [step for step in range(10) if schedule.synchronizes_after(step)] == [2, 7]
    assert [step for step in range(10) if schedule.reweights_after(step)] == [4, 9]
    assert [schedule.alpha(step) for step in range(10)] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2, 2, 2, 2, 2])


def test_the_average_takes_the_last_share_and_at_least_one_end_of_phase_3():
    schedule = BilevelSchedule(auxiliary_steps=3, primary_steps=2, max_steps=40)
    assert [step for step in range(40) if schedule.averages_after(step, 0.25)] == [34, 39]
    assert [step for step in range(40) if schedule.averages_after(step, 0.01)] == [39]
    assert not any(schedule.averages_after(step, 0) for step in range(40))
    unfinished = BilevelSchedule(auxiliary_steps=3, primary_steps=2, max_steps=42)
    assert [step for step in range(42) if unfinished.averages_after(step, 0.01)] == [39]
    vanilla = BilevelSchedule(auxiliary_steps=0, primary_steps=2, max_steps=8, bilevel=False)
    assert [step for step in range(8) if vanilla.averages_after(step, 0.25)] == [6, 7]
