import pytest
import torch
from offline_rl_tiny import Recording, logged
from torch import nn

from boost_trl.trainer.offline_rl import parameter_average
from boost_trl.trainer.offline_rl.parameter_average import ParameterAverage


def test_it_is_the_mean_and_makes_room_once():
    weight = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    average = ParameterAverage()
    average.allocate({"weight": weight})
    place = average.means["weight"].data_ptr()
    for value in (1.0, float("nan"), 2.0, 6.0):
        if value == 2.0:
            average.reset()  # what diverged before is forgotten
        with torch.no_grad():
            weight.fill_(value)
        average.add({"weight": weight})
    assert average.means["weight"].data_ptr() == place and average.means["weight"].dtype == torch.float32
    average.apply_to({"weight": weight})
    assert weight.tolist() == [4, 4, 4]


def test_large_averages_lie_on_the_cpu(monkeypatch):
    parameters = {"a": nn.Parameter(torch.empty(5, device="meta")), "b": nn.Parameter(torch.empty(5, device="meta"))}
    for limit, device in ((40, "meta"), (39, "cpu")):
        monkeypatch.setattr(parameter_average, "LARGEST_ON_DEVICE", limit)
        average = ParameterAverage()
        average.allocate(parameters)
        assert {mean.device.type for mean in average.means.values()} == {device}


@pytest.mark.parametrize("average_last, room", [(0.25, True), (0.0, False)])
def test_room_is_made_before_the_first_update(make_trainer, average_last, room):
    class Watching(Recording):
        def get_batch_samples(self, *args):
            self.rooms = [
                *getattr(self, "rooms", []),
                sum(mean.numel() for mean in self.parameter_average.means.values()),
            ]
            return super().get_batch_samples(*args)

    trainer = make_trainer(trainer_class=Watching, average_last=average_last, method="vanilla")
    trainer.train()
    assert trainer.rooms == [sum(p.numel() for p in trainer._averaged_parameters().values()) * room] * 4


def mean_after(trainer, steps):
    return torch.stack([trainer.history[step]["after"]["model"]["primary.q_weight"] for step in steps]).mean(0)


@pytest.mark.parametrize(
    "options, first, second",
    [({"method": "vanilla"}, (6, 7), (12, 13, 14, 15)), ({"average_last": 0.5}, (7,), (11, 15))],
    ids=["vanilla", "boost"],
)
def test_a_run_that_is_extended_averages_its_own_last_updates(make_trainer, tmp_path, options, first, second):
    options = {"average_last": 0.25, **options}
    short = make_trainer(trainer_class=Recording, max_steps=8, save_strategy="steps", save_steps=8, **options)
    short.train()
    torch.testing.assert_close(short.model.primary.q_weight.data, mean_after(short, first))
    resumed = make_trainer(trainer_class=Recording, max_steps=16, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-8"))
    assert len(resumed.history) == 8
    torch.testing.assert_close(resumed.model.primary.q_weight.data, mean_after(resumed, [step - 8 for step in second]))


def test_updates_that_a_checkpoint_did_not_average_are_missed_aloud(make_trainer, tmp_path, caplog):
    options = {"method": "vanilla", "max_steps": 8, "trainer_class": Recording}
    make_trainer(average_last=0.25, save_strategy="steps", save_steps=6, **options).train()
    resumed = make_trainer(average_last=0.5, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-6"))
    assert "2 of the updates to average lie before" in caplog.text
    torch.testing.assert_close(resumed.model.primary.q_weight.data, mean_after(resumed, (0, 1)))


def test_a_second_run_of_a_trainer_starts_its_counts_and_averages_anew(make_trainer):
    trainer = make_trainer(trainer_class=Recording, method="vanilla", average_last=0.25, max_steps=8)
    trainer.train()
    trainer.history.clear()
    trainer.train()
    torch.testing.assert_close(trainer.model.primary.q_weight.data, mean_after(trainer, (6, 7)))


def test_a_second_run_logs_nothing_of_the_first(make_trainer):
    # Nothing moves, so that every run of the same rows logs the same. The fifth update is in no log.
    trainer = make_trainer(
        reweighting="uniform", learning_rate=0.0, max_steps=5, auxiliary_steps=1, primary_steps=1, logging_steps=2
    )
    runs = []
    for _ in range(2):
        trainer.train()
        names = ("train_loss_weighted", "validation_loss", "num_tokens", "phase", "mean_q")
        runs.append({name: logged(trainer, name) for name in names})
    assert runs[1] == runs[0] and len(runs[0]["num_tokens"]) == 2
