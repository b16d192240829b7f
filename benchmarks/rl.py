"""Steps of `BilevelOfflineRLTrainer` beside those of its backbone, of its phases, and scoring beside the training that follows."""

import tempfile
from functools import partial

import torch
from side_by_side import Row, Seconds, Times, in_turns
from small_models import Clock, llama, random_dialogues, tokenizer, trainer_of
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer
from boost_trl.environments.base import make_env
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.hub_names import resolve_model_name
from boost_trl.smollm2_package import SMOLLM2


VOCABULARY = 4096


def trainer_on(
    model, options: dict, callbacks, num_rows: int, turns: int = 2, words: int = 16, trainer_class=None, **data
):
    """A trainer on random dialogues."""
    options = {"cache_dir": tempfile.mkdtemp(), **options}
    if options.get("method") != "vanilla":
        data["validation_dataset"] = random_dialogues(64, turns, words, VOCABULARY, seed=1)
    return trainer_of(
        trainer_class or BilevelOfflineRLTrainer,
        BilevelOfflineRLConfig,
        model,
        callbacks,
        options=options,
        train_dataset=random_dialogues(num_rows, turns, words, VOCABULARY),
        **{"processing_class": tokenizer(VOCABULARY), **data},
    )


# A whole step


def smollm2_steps(rounds: int = 1, batch: int = 4, words: int = 64) -> list[Row]:
    """Policy updates of a real model, optimizer included, beside its backbone's forward and backward pass on as many tokens."""
    folder = resolve_model_name(SMOLLM2)
    spec = {"MC": ("mc", None, 1.20), "ILQL": ("ilql", None, 1.40), "MC, `value_head_rank=64`": ("mc", 64, 1.05)}
    tokens = []

    def step(algorithm: str, rank: int | None) -> Seconds:
        clock = Clock(warm_up=1)
        options = {
            "method": "vanilla",
            "algorithm": algorithm,
            "value_head_rank": rank,
            "max_steps": 2,
            "per_device_train_batch_size": batch,
            "average_last": 0.0,
        }
        names = {"processing_class": AutoTokenizer.from_pretrained(folder)}
        model = AutoModelForCausalLM.from_pretrained(folder)
        trainer = trainer_on(model, options, [clock], 2 * batch, 1, words, **names)
        trainer.train()
        tokens.append(trainer.num_tokens // 2)
        return clock.per_step

    def backbone() -> Seconds:
        model = AutoModelForCausalLM.from_pretrained(folder).model
        input_ids = torch.randint(1000, (batch, tokens[0] // batch))
        for _ in range(2):
            start = Seconds.now()
            model(input_ids=input_ids).last_hidden_state.sum().backward()
            seconds = Seconds.now() - start
            model.zero_grad()
        return seconds

    ways = {name: partial(step, *what[:2]) for name, what in spec.items()} | {"backbone": backbone}
    times = in_turns(ways, rounds, "SmolLM2 steps", warm_up=False)
    details = {"tokens_per_step": tokens[0], "rounds": rounds}
    against = "the backbone's forward and backward"
    return [
        times.row(f"whole RL step, SmolLM2-135M, {name}", name, "backbone", aim, named=against, **details)
        for name, (*_, aim) in spec.items()
    ]


# Phases


class Phases(TrainerCallback):
    """Seconds of policy updates by phase, from their batches to the optimizer's step."""

    def __init__(self):
        self.seconds: dict[str, list[Seconds]] = {}

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = Seconds.now()

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.add("phase 1" if state.global_step % 4 < 2 else "phase 3", self.start)

    def add(self, phase: str, start: Seconds) -> None:
        self.seconds.setdefault(phase, []).append(Seconds.now() - start)


def phases(iterations: int = 6, batch: int = 8) -> list[Row]:
    """Updates of one training, which come in turns anyway, and steps with a frozen backbone beside those with a trained one."""
    clock = Phases()

    class Timed(BilevelOfflineRLTrainer):
        def _update_reweighting_head(self, step):
            start = Seconds.now()
            super()._update_reweighting_head(step)
            clock.add("phase 4", start)

    options = {"per_device_train_batch_size": batch, "average_last": 0.0, "logging_steps": 1000}
    bilevel = {"auxiliary_steps": 2, "primary_steps": 2, "reweighting_steps": 2, "max_steps": 4 * iterations}
    trainer_on(llama(VOCABULARY, 256, 8), options | bilevel, [clock], 4 * batch, trainer_class=Timed).train()
    # The first iteration is a warm-up.
    times = Times({name: seconds[2:] for name, seconds in clock.seconds.items()})
    details = {"parameters": llama(VOCABULARY, 256, 8).num_parameters(), "updates": len(times.rounds["phase 1"])}
    phase_4 = times.row("RL, phase-4 step", "phase 4", "phase 1", 0.40, named="a phase-1 step", **details)

    def vanilla(way: str) -> Seconds:
        per_step = Clock()
        only = {"method": "vanilla", "train_backbone": way == "trained", "max_steps": 8}
        trainer = trainer_on(llama(VOCABULARY, 256, 8), options | only, [per_step], 4 * batch)
        if way == "run":
            trainer.data.store.states = None  # kept from before training
        trainer.train()
        return per_step.per_step

    times = in_turns(
        {way: partial(vanilla, way) for way in ("frozen", "run", "trained")}, 3, "RL frozen backbone", False
    )
    name = "RL, frozen backbone, per step"
    return [
        phase_4,
        times.row(name, "frozen", "run", 0.10, named="the same with the backbone run", **details),
        times.row(name, "frozen", "trained", 0.10, named="the same with the backbone run and trained", **details),
    ]


# Scoring


class FirstUpdates(Clock):
    """When policy updates begin, and seconds of some of them, after which training stops."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = Seconds.now()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2 * self.warm_up:
            self.per_step = (Seconds.now() - self.start) / self.warm_up
            control.should_training_stop = True
        super().on_step_end(args, state, control, **kwargs)


def scoring(num_rows: int = 240, batch: int = 8) -> list[Row]:
    """Validated reweighting on dialogues of Twenty Questions, with SmolLM2's vocabulary: what comes before the first policy update
    beside all policy updates, of which the first few are timed."""
    env = make_env("twenty_questions", world="small")
    smollm2 = AutoTokenizer.from_pretrained(resolve_model_name(SMOLLM2))
    rows = []
    for backbone in ("trained", "frozen"):
        updates = FirstUpdates(warm_up=3)
        model = llama(len(smollm2), 256, 8)
        options = {
            "method": "validated",
            "num_train_epochs": 3,
            "per_device_train_batch_size": batch,
            "train_backbone": backbone == "trained",
            "cache_dir": tempfile.mkdtemp(),
        }
        trainer = trainer_of(
            BilevelOfflineRLTrainer,
            BilevelOfflineRLConfig,
            model,
            [updates],
            options=options,
            train_dataset=offline_trajectories(env, num_rows, seed=0),
            validation_dataset=offline_trajectories(env, 40, seed=1),
            processing_class=smollm2,
        )
        start = Seconds.now()
        trainer.train()
        count = trainer.state.max_steps
        training = Seconds(updates.per_step.cpu * count, updates.per_step.wall * count)
        times = Times({"scoring": [updates.began - start], "training": [training]})
        details = {"parameters": model.num_parameters(), "rows": num_rows, "updates": count}
        details |= {name: trainer.validated_report[name] for name in ("fits", "score_steps", "num_words")}
        name, named = (
            f"RL, validated reweighting's scoring and guard, {backbone} backbone",
            "the training that follows",
        )
        rows.append(times.row(name, "scoring", "training", 1.0, named=named, **details))
    return rows
