"""Learned trajectory weights on Twenty Questions, from nothing, in minutes on two cores.

A tiny language model learns the words and facts of a small world; a pool of offline dialogues is mixed with planted
noise and with dialogues that the model made up; eight methods train on it with the same number of policy updates and
play live games about categories that none of them trained on. Results go to `outputs/twenty_questions/`.

    python examples/twenty_questions.py
    python examples/twenty_questions.py --noise bot --algorithm ilql --seeds 0 1 2

Left out: the paper's GPT-2, its 40,000 dialogues and its 14 hours per run.
"""

import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from trl import TrlParser


@dataclass
class Arguments:
    noise: str = field(
        default="bot",
        metadata={
            "help": "Planted noise in the training pool: 'none', 'diverse' (garbage, wrong worlds, faked successes, hot "
            "self-play), 'stale' (logs of a world whose facts have changed) or 'bot' (a bot that fakes successes)."
        },
    )
    noise_share: float = field(default=0.6, metadata={"help": "Share of the offline training rows that is noise."})
    algorithm: str = field(default="mc", metadata={"help": "Offline RL loss: 'mc' or 'ilql'."})
    seeds: list[int] = field(
        default_factory=lambda: [1], metadata={"help": "Worlds to run; each has its own facts, data and training."}
    )
    data: str = field(default="high", metadata={"help": "'high': all training rows; 'low': a tenth of them."})
    methods: list[str] | None = field(default=None, metadata={"help": "Methods to run; all by default."})
    dialogues: int = field(default=3000, metadata={"help": "Offline dialogues before the split by category."})
    validation_rows: int = field(default=40, metadata={"help": "Size of the trusted validation set."})
    updates: int = field(default=400, metadata={"help": "Policy updates of every method."})
    games: int = field(default=256, metadata={"help": "Live games behind every reported reward."})
    validation_games: int = field(default=128, metadata={"help": "Live games on validation tasks behind every β."})
    train_backbone: bool = field(default=False, metadata={"help": "Train the language model too, not only its heads."})
    output_dir: str = field(default="outputs/twenty_questions", metadata={"help": "Where results go."})


NOISE_KINDS = ("none", "diverse", "stale", "bot")
LOW_DATA = 0.1


def training_options(arguments: Arguments, seed: int, cache_dir: Path) -> dict:
    """What all methods share.

    A tiny model has few tokens to learn from, hence a larger learning rate than the paper's 1e-4 for GPT-2. Outer
    iterations are half as long as the paper's and end in five steps of φ, because 400 updates would otherwise leave it ten.
    """
    return {
        "algorithm": arguments.algorithm,
        "max_steps": arguments.updates,
        "auxiliary_steps": 10,
        "primary_steps": 10,
        "reweighting_steps": 5,
        "per_device_train_batch_size": 64,
        "learning_rate": 3e-3,
        "reweighting_learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "max_grad_norm": 0.0,
        "cql_weight": 5.0,
        "train_backbone": arguments.train_backbone,
        "states_dtype": "float32",
        "cache_dir": str(cache_dir),
        "logging_steps": 20,
        "seed": seed,
        "use_cpu": True,
    }


def make_setting(arguments: Arguments, seed: int, folder: Path, world: int | None = None):
    """Model, data and games: `world` (by default `seed`) has the facts, `seed` draws the data."""
    from functools import partial

    from boost_trl import generate_synthetic, make_env, split_by_category
    from boost_trl.comparison.setting import Setting
    from boost_trl.data.splits import subsample
    from boost_trl.environments.twenty_questions.noise import add_noise
    from boost_trl.environments.twenty_questions.players import offline_dialogues
    from boost_trl.environments.twenty_questions.pretraining import build_embedded_lm

    world = seed if world is None else world
    factory = partial(make_env, "twenty_questions", world="small", seed=world)
    env = factory()
    model, tokenizer = build_embedded_lm(world_seed=world, cache_dir=folder / "models")
    dialogues = offline_dialogues(env, arguments.dialogues, seed=seed)
    split = split_by_category(dialogues, train_task_frac=0.6, val_split=0.3, seed=seed)
    validation = split.validation.select(range(min(arguments.validation_rows, len(split.validation))))
    train = split.train if arguments.data == "high" else subsample(split.train, LOW_DATA, seed=seed)
    if arguments.noise != "none":
        train = add_noise(train, env, arguments.noise, arguments.noise_share, seed=seed)
    # At temperature 1 most of what so small a model makes up is noise, and a context that starts with an example is unlike
    # any that it was trained on.
    synthetic = generate_synthetic(
        model, tokenizer, train, env, seed=seed, batch_size=256, max_new_tokens=8, temperature=0.5, example=False
    )

    tasks = {task.id: task for task in env.tasks()}
    validation_ids = {row["id"] for row in validation["task"]}
    evaluation_ids = {row["id"] for row in split.evaluation["task"]}
    print(
        f"world {world}: {len(train)} offline rows in {len(split.train_categories)} categories, {len(synthetic)} synthetic, "
        f"{len(validation)} validation; {len(evaluation_ids)} evaluation targets in {len(split.heldout_categories)} "
        f"held-out categories, {len(evaluation_ids & validation_ids)} of them also in validation"
    )
    return Setting(
        model=model,
        tokenizer=tokenizer,
        make_env=factory,
        offline=train,
        synthetic=synthetic,
        validation=validation,
        evaluation=split.evaluation,
        validation_tasks=[tasks[name] for name in sorted(validation_ids)],
        evaluation_tasks=[tasks[name] for name in sorted(evaluation_ids)],
        max_new_tokens=8,
    )


def main(arguments: Arguments) -> None:
    from boost_trl.comparison.recipe import compare

    if arguments.noise not in NOISE_KINDS:
        raise ValueError(f"`noise` is {arguments.noise!r}; choose one of {', '.join(NOISE_KINDS)}")
    if arguments.data not in ("low", "high"):
        raise ValueError(f"`data` is {arguments.data!r}; choose 'low' or 'high'")
    folder = Path(arguments.output_dir)
    compare(
        title="Twenty Questions",
        folder=folder,
        seeds=arguments.seeds,
        make_setting=lambda seed: make_setting(arguments, seed, folder),
        options=lambda seed: training_options(arguments, seed, folder / "cache"),
        methods=arguments.methods,
        games=arguments.games,
        validation_games=arguments.validation_games,
        settings=vars(arguments),
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(Arguments)
    main(parser.parse_args_and_config()[0])
