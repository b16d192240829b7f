"""An [`OfflineRLExperiment`] from an environment's scripted dialogues: the paper's splits, planted noise, self-play, tasks."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset, concatenate_datasets
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig, get_peft_config

from boost_trl.comparison.models import load_model, load_tokenizer
from boost_trl.comparison.offline_rl.arguments import ComparisonArguments
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.data.chat_templates import with_action_marks
from boost_trl.data.splits import split_by_category, subsample
from boost_trl.environments.base import Environment, Task, as_task
from boost_trl.environments.synthetic import generate_synthetic
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


# Rows that one process synthesizes at a time, and the episodes of a batch.
SHARD_ROWS, SHARD_BATCH = 256, 32


def build_experiment(
    arguments: ComparisonArguments,
    training_args: BilevelOfflineRLConfig,
    model_args: ModelConfig,
    *,
    seed: int,
    make_env: Callable[[], Environment],
    dialogues: Dataset,
    embedded_lm: Callable[[Path], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    embedded_synthetic: Mapping[str, Any],
    add_noise: Callable[[Dataset], Dataset] | None = None,
) -> OfflineRLExperiment:
    """Model, data and games of one world.

    Args:
        arguments, training_args, model_args: as `parse_arguments` returns them.
        seed (`int`): of splits and self-play.
        make_env (`Callable`): makes a game.
        dialogues (`Dataset`): offline rows with `category` and `task`, before the split.
        embedded_lm (`Callable`): a function of a cache folder that returns the model when none is named.
        embedded_synthetic (`Mapping`): how that model plays itself: options of `generate_synthetic`. A named model plays
            under the paper's prompts.
        add_noise (`Callable`, *optional*): plants noise among the training rows, if `arguments.noise` asks for it.
    """
    folder, state = Path(training_args.output_dir), PartialState()
    split = split_by_category(dialogues, arguments.train_task_frac, arguments.val_split, seed=seed)
    validation = split.validation
    if arguments.validation_rows is not None:
        validation = validation.select(range(min(arguments.validation_rows, len(validation))))
    train = subsample(split.train, arguments.train_fraction, seed=seed)
    if add_noise is not None and arguments.noise != "none":
        train = add_noise(train)
    if model_args.model_name_or_path is None:
        with state.main_process_first():
            model, tokenizer = embedded_lm(folder / "models")
        make_model, make_peft_config = partial(copy.deepcopy, model), lambda: None
        synthetic = generate_synthetic(
            model, tokenizer, train, make_env(), seed=seed, **{"progress": state.is_main_process, **embedded_synthetic}
        )
    else:
        tokenizer = with_action_marks(load_tokenizer(model_args))
        make_model = partial(load_model, model_args, training_args)
        make_peft_config = partial(get_peft_config, model_args)
        max_new_tokens = training_args.max_new_tokens
        made_with = [train["messages"][:], vars(model_args), arguments.environment_kwargs, max_new_tokens]
        digest = hashlib.sha256(json.dumps(made_with).encode()).hexdigest()[:8]
        shards = folder / "synthetic" / f"{seed}-{digest}"
        synthetic = shared_synthetic(
            make_model(), tokenizer, train, make_env(), shards, seed=seed, max_new_tokens=max_new_tokens
        )
        clear_device_cache(garbage_collection=True)
    validation_tasks, evaluation_tasks = distinct_tasks(validation), distinct_tasks(split.evaluation)
    if arguments.unseen_tasks:
        validation_tasks, evaluation_tasks = unseen_tasks(validation_tasks, evaluation_tasks)
    experiment = OfflineRLExperiment(
        make_model=make_model,
        tokenizer=tokenizer,
        make_env=make_env,
        offline=train,
        synthetic=synthetic,
        validation=validation,
        evaluation=split.evaluation,
        validation_tasks=validation_tasks,
        evaluation_tasks=evaluation_tasks,
        make_peft_config=make_peft_config,
    )
    if state.is_main_process:
        print(
            f"world {seed}: {len(train)} offline rows in {len(split.train_categories)} categories, {len(synthetic)} "
            f"synthetic, {len(validation)} validation; {len(evaluation_tasks)} evaluation tasks in "
            f"{len(split.heldout_categories)} held-out categories, {experiment.num_shared_tasks} of them also in validation"
        )
    return experiment


def distinct_tasks(rows: Dataset) -> Sequence[Task]:
    """The tasks of a dataset's `task` column, each once, by id."""
    tasks = {task.id: task for task in map(as_task, rows["task"])}
    return [tasks[name] for name in sorted(tasks)]


def unseen_tasks(seen: Sequence[Task], tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """Those of `tasks` that are not `seen`, in two parts: every third one, and the others.

    Raises:
        ValueError: if that leaves a part empty.
    """
    known = {task.id for task in seen}
    unseen = [task for task in tasks if task.id not in known]
    if len(unseen) < 2:
        raise ValueError(
            f"`unseen_tasks` needs two evaluation tasks that no validation row has, got {len(unseen)}: lower "
            "`validation_rows` or `val_split`"
        )
    return unseen[::3], [task for number, task in enumerate(unseen) if number % 3]


def shared_synthetic(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    env: Environment,
    folder: Path,
    *,
    seed: int,
    max_new_tokens: int,
) -> Dataset:
    """One synthetic row per row of `train`, under the paper's prompts, written by all processes together.

    Every shard of rows has its own file, so that rows depend neither on the number of processes nor on how often the run
    was killed. All processes must see `folder`.
    """
    state = PartialState()

    def shard(start: int) -> Dataset:
        return generate_synthetic(
            model,
            tokenizer,
            train.select(range(start, min(start + SHARD_ROWS, len(train)))),
            env,
            prompt_style="paper",
            seed=seed + start,
            batch_size=SHARD_BATCH,
            max_new_tokens=max_new_tokens,
            output_path=folder / f"{start}.jsonl",
            progress=False,
        )

    starts = range(0, len(train), SHARD_ROWS)
    mine = starts[state.process_index :: state.num_processes]
    for start in tqdm(mine, desc="Synthesizing", unit="shard", disable=not state.is_main_process):
        shard(start)
    state.wait_for_everyone()
    # What is on disk is only read.
    return concatenate_datasets([shard(start) for start in starts])
