"""The answers of one refresh: what became of them, their files, and their table in experiment trackers."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers.utils import is_rich_available
from trl.trainer.utils import print_prompt_completions_sample

from boost_trl.files import whole_file
from boost_trl.trainer.sft.generation import Status


_FIELDS = ("step", "rows", "lengths", "tokens", "log_probs", "status", "ratios")


@dataclass
class Answers:
    """G answers to each of Q questions. Answer number q·G + g is the g-th of question q.

    Args:
        step (`int`): optimizer steps before the refresh.
        rows (`np.ndarray`): (Q,) row numbers of the questions.
        tokens (`list[list[int]]`): (Q·G) answers.
        log_probs (`list[np.ndarray]`): (Q·G) log-probabilities of their tokens under π_old; empty where an answer has not
            been scored.
        status (`np.ndarray`): (Q·G,) int8, [`~boost_trl.trainer.sft.generation.Status`].
        ratios (`np.ndarray`): (Q·G, 3) how often an answer was visited, the sum and the largest of its raw ratios.
    """

    step: int
    rows: np.ndarray
    tokens: list[list[int]]
    log_probs: list[np.ndarray]
    status: np.ndarray
    ratios: np.ndarray
    places: dict[int, int] = field(init=False)

    def __post_init__(self):
        self.places = {row: place for place, row in enumerate(self.rows.tolist())}

    @property
    def per_question(self) -> int:
        return len(self.tokens) // len(self.rows) if len(self.rows) else 0

    def of_row(self, row: int) -> range:
        """The numbers of a row's answers; empty for a row without."""
        place = self.places.get(row)
        return range(0) if place is None else range(place * self.per_question, (place + 1) * self.per_question)

    def used(self, row: int) -> list[int]:
        """The numbers of those of a row's answers that are trained on."""
        return [number for number in self.of_row(row) if self.status[number] == Status.USED]

    def mean_length(self) -> float:
        """Tokens per answer as the refresh found them, over answers that were scored: what an answer counts in N_pool."""
        lengths = [len(tokens) for tokens, scored in zip(self.tokens, self.log_probs) if len(scored)]
        return float(np.mean(lengths)) if lengths else 0.0

    def count_visits(self, numbers: list[int], ratios: np.ndarray) -> None:
        """Remember that these answers were visited once more, with these raw ratios."""
        self.ratios[numbers, 0] += 1
        self.ratios[numbers, 1] += ratios
        self.ratios[numbers, 2] = np.maximum(self.ratios[numbers, 2], ratios)

    def state(self) -> dict[str, torch.Tensor]:
        """State for an exact continuation."""
        return {
            "step": torch.tensor(self.step),
            "rows": torch.from_numpy(self.rows),
            "lengths": torch.tensor([[len(t), len(p)] for t, p in zip(self.tokens, self.log_probs)]).view(-1, 2),
            "tokens": torch.tensor([token for tokens in self.tokens for token in tokens], dtype=torch.int64),
            "log_probs": torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *self.log_probs])),
            "status": torch.from_numpy(self.status),
            "ratios": torch.from_numpy(self.ratios),
        }

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> "Answers":
        step, rows, lengths, tokens, log_probs, status, ratios = (state[name] for name in _FIELDS)
        num_tokens, num_scored = lengths.long().T.tolist()
        return cls(
            step=int(step),
            rows=rows.numpy(),
            tokens=[piece.tolist() for piece in tokens.split(num_tokens)] if num_tokens else [],
            log_probs=[piece.numpy() for piece in log_probs.split(num_scored)] if num_scored else [],
            status=status.numpy(),
            ratios=ratios.numpy(),
        )

    def write(
        self, path: Path, index: list[int], questions: list[str], texts: list[str], weights: np.ndarray
    ) -> Dataset:
        """Write and return one row per question: `index` (of the user's row), `question`, `weight` and, one entry per
        answer, `answers`, `status`, `log_probs` (summed), `num_tokens`, `visits`, `ratio_mean` and `ratio_max` (raw;
        null before the first visit).

        The file appears whole or not at all.
        """
        visits, sums, largest = self.ratios.T

        def grouped(values) -> list[list]:
            values = list(values)
            return [values[n * self.per_question : (n + 1) * self.per_question] for n in range(len(self.rows))]

        table = Dataset.from_dict(
            {
                "index": index,
                "question": questions,
                "answers": grouped(texts),
                "status": grouped(Status(status).name.lower() for status in self.status),
                "log_probs": grouped(float(p.astype(np.float64).sum()) if len(p) else None for p in self.log_probs),
                "num_tokens": grouped(len(tokens) for tokens in self.tokens),
                "visits": grouped(int(count) for count in visits),
                "ratio_mean": grouped(total / count if count else None for total, count in zip(sums, visits)),
                "ratio_max": grouped(value if count else None for value, count in zip(largest, visits)),
                "weight": weights,
            }
        )
        with whole_file(path) as draft:
            table.to_parquet(draft)
        return table


def completions_table(generations: Dataset, step: int, max_rows: int | None = None) -> pd.DataFrame:
    """One row per answer, with the names that TRL uses for questions and answers.

    Args:
        generations ([`~datasets.Dataset`]): rows of `generations/step-N.parquet`.
        step (`int`): optimizer steps before the refresh.
        max_rows (`int`, *optional*): keep at most so many answers, evenly spaced.
    """
    table = generations.to_pandas().rename(columns={"question": "prompt", "answers": "completion"})
    lists = ["completion", "status", "log_probs", "num_tokens", "visits", "ratio_mean", "ratio_max"]
    table = table.explode(lists, ignore_index=True)
    if max_rows is not None and len(table) > max_rows:
        table = table.iloc[np.linspace(0, len(table) - 1, max_rows).astype(int)].reset_index(drop=True)
    table.insert(0, "step", step)
    return table


def print_completions(table: pd.DataFrame) -> None:
    """Show a table on the console if `rich` is installed."""
    if is_rich_available():
        print_prompt_completions_sample(
            table["prompt"].tolist(),
            table["completion"].tolist(),
            rewards={"weight": table["weight"].tolist()},
            advantages=None,
            step=int(table["step"].iloc[0]),
            extra={"status": table["status"].tolist()},
        )
