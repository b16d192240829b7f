"""Model, data and games that all methods of an offline RL comparison share."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from boost_trl.data.chat_templates import with_action_marks
from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectories import to_trajectory
from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.environments.base import Environment, Task, as_task
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.offline_rl.backbone import fit_return_normalization, tokenize_options


_COLUMNS = ("messages", "rewards", "terminated", "category", "source", "is_noise", "noise_kind", "noise_turns", "task")


@dataclass
class OfflineRLExperiment:
    """One world with its model, data and tasks.

    Args:
        make_model (`Callable[[], PreTrainedModel]`): a fresh copy of what every method starts from.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        make_env (`Callable`, *optional*): makes a game, where games are played.
        offline (`Dataset`): training rows; `is_noise` marks planted noise where it is known, and `noise_turns`
            the turns of a row that are; by default all of a row that is noise.
        synthetic (`Dataset`, *optional*): one row per offline row, or as many as there are.
        validation (`Dataset`): the small trusted set.
        evaluation (`Dataset`, *optional*): held-out rows, for the loss.
        validation_tasks, evaluation_tasks (`list[Task]`): what is played to choose β, and to report.
        make_peft_config (`Callable`, *optional*): a fresh adapter's settings, if one is to be trained.
    """

    make_model: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    make_env: Callable[[], Environment] | None
    offline: Dataset
    synthetic: Dataset | None
    validation: Dataset
    evaluation: Dataset | None
    validation_tasks: Sequence[Task]
    evaluation_tasks: Sequence[Task]
    make_peft_config: Callable[[], Any] = lambda: None
    _normalization: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.offline = _common_columns(self.offline, "offline")
        if self.synthetic is not None:
            self.synthetic = _common_columns(self.synthetic, "synthetic")
        self.validation = _common_columns(self.validation, "offline")
        if self.evaluation is not None:
            self.evaluation = _common_columns(self.evaluation, "offline")

    @property
    def pool(self) -> Dataset:
        """Offline and synthetic rows."""
        return concatenate_datasets([self.offline, *([] if self.synthetic is None else [self.synthetic])])

    @property
    def num_shared_tasks(self) -> int:
        """Number of evaluation tasks that have a validation row too."""
        return len({task.id for task in self.evaluation_tasks} & {task.id for task in self.validation_tasks})

    @property
    def held_out_tasks(self) -> list[Task]:
        """Evaluation tasks of which neither pool nor validation set has a row, and by which nothing is chosen."""
        known = {row["id"] for rows in (self.pool, self.validation) for row in rows["task"] if row is not None}
        known |= {task.id for task in self.validation_tasks}
        return [task for task in self.evaluation_tasks if task.id not in known]

    def return_normalization(self, model: PreTrainedModel, args: BilevelOfflineRLConfig) -> tuple[float, float]:
        """(shift, scale) of the pool's returns: one for all methods, whichever rows they train on, so that β and losses mean
        the same in every row of a comparison."""
        key = (args.algorithm, args.discount, args.discount_level, args.max_length)
        if key not in self._normalization:
            rows = tokenize_trajectories(
                self.pool, with_action_marks(self.tokenizer), name="pool", **tokenize_options(model, args)
            )
            store = TrajectoryStore(rows, self.tokenizer.pad_token_id)
            self._normalization[key] = fit_return_normalization(store, args.algorithm)
        return self._normalization[key]


def _uniform(task: Task) -> dict[str, str]:
    """A task of which every row's has the same fields, as a column needs."""
    return task.to_dict() | {"data": json.dumps(task.data)}


def _common_columns(dataset: Dataset, source: str) -> Dataset:
    rows = []
    for index, row in enumerate(dataset):
        trajectory, is_noise = to_trajectory(row, index, source), bool(row.get("is_noise", False))
        rows.append(
            {
                **trajectory,
                "category": row.get("category"),
                "source": source,
                "is_noise": is_noise,
                "noise_kind": row.get("noise_kind") or "",
                "noise_turns": row.get("noise_turns") or [is_noise] * len(trajectory["rewards"]),
                "task": None if row.get("task") is None else _uniform(as_task(row["task"])),
            }
        )
    return Dataset.from_list(rows).select_columns(list(_COLUMNS))
