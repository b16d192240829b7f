"""Online self-refining: masked questions are trained on the model's own answers, weighted by importance ratios."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from boost_trl.selection import Selector, importance_ratios, response_weights
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID, NO_EXAMPLE, ExampleIdCollator
from boost_trl.trainer.row_weights.forward import EvaluationForward
from boost_trl.trainer.row_weights.optimizer_batch import MICRO_BATCH, NO_ANSWER, MicroBatch, take_numbered_micro_batch
from boost_trl.trainer.row_weights.pool import Pool
from boost_trl.trainer.row_weights.prepared_rows import rows_without_question
from boost_trl.trainer.sft.answers import Answers, completions_table, print_completions
from boost_trl.trainer.sft.generation import (
    AnswerGenerator,
    Status,
    answer_start,
    answered_row,
    examine,
    score_answers,
)
from boost_trl.trainer.sft.visit_forecast import VisitForecast


def draw_mask(num_rows: int, ratio: float, seed: int, logits: np.ndarray | None = None) -> np.ndarray:
    """Questions that the model answers itself.

    Args:
        num_rows (`int`): N.
        ratio (`float`): R; ⌊R·N⌋ rows are masked.
        seed (`int`): fixes the draw, or the order among equal logits.
        logits (`np.ndarray`, *optional*): (N,) ω. If given, the rows of lowest ω are masked, else random ones.

    Returns:
        `np.ndarray`: sorted row numbers.
    """
    order = np.random.default_rng(seed).permutation(num_rows)
    if logits is not None:
        order = order[np.argsort(logits[order], kind="stable")]
    return np.sort(order[: math.floor(ratio * num_rows)])


class SelfRefinement:
    """Puts the model's own answers in the place of masked rows.

    Args:
        dataset ([`~datasets.Dataset`]): prepared training rows with the columns that the collator reads.
        pool ([`~boost_trl.trainer.row_weights.pool.Pool`]): their numbers.
        selector ([`~boost_trl.selection.Selector`]): their weights.
        args ([`BilevelSFTSelfRefineConfig`]): which rows, when, and what their answers count.
        accelerator ([`~accelerate.Accelerator`]): of the training.
        generator ([`~boost_trl.trainer.sft.generation.AnswerGenerator`]): answers.
        forward ([`~boost_trl.trainer.row_weights.forward.EvaluationForward`]): scores answers.
        log (`Callable`): given the name and the value of a metric.
        log_table (`Callable`): given the answers for trackers.

    Raises:
        ValueError: if the share R masks no row, or the data does not tell where questions end.
    """

    def __init__(
        self,
        dataset: Dataset,
        pool: Pool,
        selector: Selector,
        args: BilevelSFTSelfRefineConfig,
        accelerator: Accelerator,
        generator: AnswerGenerator,
        forward: EvaluationForward,
        log: Callable[[str, float], None],
        log_table: Callable[[pd.DataFrame], None],
    ):
        if "labels" not in dataset.column_names:
            raise ValueError(
                "`online_ratio` needs prepared text: `train_dataset` has no tokens yet when training starts, as with images"
            )
        self.pool, self.selector, self.args, self.accelerator = pool, selector, args, accelerator
        self.generator, self._forward, self._log_one = generator, forward, log
        self._log_table = log_table
        self._dataset = dataset.with_format(None)
        self._ids = np.asarray(self._dataset[EXAMPLE_ID][:])
        self._places = {row: place for place, row in enumerate(self._ids.tolist())}
        self._check_questions()
        self.mask = draw_mask(pool.num_examples, args.online_ratio, args.seed)
        if not len(self.mask):
            raise ValueError(f"`online_ratio` {args.online_ratio} of {pool.num_examples} rows is less than one row")
        self._answers: Answers | None = None
        self.step = 0
        self._weights: dict[int, torch.Tensor] = {}

    def begin_training(
        self, dataloader: DataLoader, collator: ExampleIdCollator, batch_size: int, max_steps: int
    ) -> None:
        """Args:
        dataloader ([`~torch.utils.data.DataLoader`]): the prepared training loader.
        collator ([`~boost_trl.trainer.row_weights.example_ids.ExampleIdCollator`]): its collator.
        batch_size (`int`): rows per process and micro-batch.
        max_steps (`int`): optimizer steps of the whole training.
        """
        self._forecast = VisitForecast(
            dataloader, self.accelerator.num_processes, batch_size, self.args.gradient_accumulation_steps
        )
        self._collator, self._batch_size, self._max_steps = collator, batch_size, max_steps

    # Refreshes

    @property
    def answers(self) -> Answers:
        """Those of the last refresh; the first optimizer batch begins with one."""
        assert self._answers is not None
        return self._answers

    def forget(self) -> None:
        """Begin anew: the present answers were another model's."""
        self._answers = None

    def refine(self, batches: list[dict[str, Any]], step: int) -> None:
        """New answers where they are due after `step` optimizer steps; then `batches`, changed in place, hold them, and what
        each of their tokens is of its row.
        """
        self.step = step
        if self._answers is None or (step % self.args.generation_interval == 0 and self.answers.step != step):
            self._refresh()
        self._weigh(batches)
        for batch in batches:
            self._replace(batch)
            self._plan_shares(batch)

    def _refresh(self) -> None:
        seed = self.args.seed * 1_000_003 + self.step
        self.write()
        metrics = {}
        if self.args.online_mask == "dynamic":
            logits = self.selector.logits().numpy()
            mask = draw_mask(self.pool.num_examples, self.args.online_ratio, seed, logits)
            if self._answers is not None:
                metrics["mask_turnover"] = len(np.setdiff1d(mask, self.mask)) / len(mask)
            self.mask = mask
        questions, rows = self._due_questions()
        tokens = self.generator.generate(questions, seed)
        texts = self.generator.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ends = self.generator.ends
        status = np.array([examine(answer, ends, text) for answer, text in zip(tokens, texts)], dtype=np.int8)
        good = np.flatnonzero(status == Status.USED).tolist()
        log_probs = [np.zeros(0, np.float32)] * len(tokens)
        scored = self._score([questions[number] for number in good], [tokens[number] for number in good])
        for number, values in zip(good, scored):
            if np.isfinite(values).all():
                log_probs[number] = values
            else:
                status[number] = Status.NON_FINITE
        self._answers = Answers(self.step, rows, tokens, log_probs, status, np.zeros((len(tokens), 3)))
        self.write()

        if len(tokens):
            metrics |= {f"{kind.name.lower()}_share": float(np.mean(status == kind)) for kind in Status if kind}
            metrics["fallback_share"] = float(np.mean(status != Status.USED))
            metrics["unfinished_share"] = float(np.mean([not answer or answer[-1] not in ends for answer in tokens]))
            metrics["answer_length"] = self.answers.mean_length()
        self._log(metrics)

    def _due_questions(self) -> tuple[list[list[int]], np.ndarray]:
        """G times each question that is masked and visited before the next refresh; the rows of the questions."""
        interval = self.args.generation_interval
        places = self._forecast.places(self.step, min(self.step - self.step % interval + interval, self._max_steps))
        rows = np.intersect1d(self.mask, self._ids if places is None else self._ids[places])
        return [self._question(row) for row in rows.tolist() for _ in range(self.args.num_generations)], rows

    def _score(self, questions: list[list[int]], answers: list[list[int]]) -> list[np.ndarray]:
        return score_answers(
            questions, answers, self._forward, self._collator.collator, self._batch_size, self.accelerator
        )

    def _question(self, row: int) -> list[int]:
        features = self._dataset[self._places[row]]
        return features["input_ids"][: answer_start(features["labels"])]

    def _check_questions(self) -> None:
        """Check that every row has a question.

        Raises:
            ValueError: for a row in which nothing precedes what is learned.
        """
        places = rows_without_question(self._dataset)
        if len(places):
            raise ValueError(
                f"row {self.pool.original_row(self._ids[places[0]])} of `train_dataset` has no question ({len(places)} of {len(self._ids)} rows "
                "have none): no token that is not learned comes before its answer. `online_ratio` needs rows with "
                "`prompt` and `completion`, or `messages` with `assistant_only_loss=True`; with such rows, set "
                "`completion_only_loss=True` (or leave it at `None`), and raise `max_length` if "
                "`truncation_mode='keep_end'` cuts questions off"
            )

    # One optimizer batch

    def _weigh(self, batches: list[dict[str, Any]]) -> None:
        """r_g, or what `response_weighting` puts in its place, of the answers that this optimizer batch visits on any process."""
        self._weights = {}
        numbers, new, old = self._score_again(self._visited(batches))
        if not numbers:
            return
        lengths = torch.tensor([len(values) for values in old])
        new, old = (pad_sequence(list(map(torch.from_numpy, values)), batch_first=True) for values in (new, old))
        mask = torch.arange(old.size(1)) < lengths[:, None]
        ratios = importance_ratios(
            new, old, mask, self.args.importance_sampling_level, self.args.importance_sampling_cap
        )
        weights = ratios.ratios
        if self.args.response_weighting != "importance":
            questions = torch.tensor(numbers) // self.answers.per_question
            weights = response_weights(new, old, mask, questions, self.args.response_weighting)
        for number, weight, length in zip(numbers, weights, lengths.tolist()):
            self._weights[number] = weight[:length] if weight.dim() else weight.expand(length)
        self.answers.count_visits(numbers, ratios.of_answers.numpy())
        self._log(
            {
                "ratio_mean": ratios.mean,
                "ratio_max": ratios.max,
                "capped_share": ratios.capped_share,
                "age": float(self._age),
            }
        )

    @property
    def _age(self) -> int:
        """Optimizer steps since the answers were generated."""
        return self.step - self.answers.step

    def _visited(self, batches: list[dict[str, Any]]) -> list[int]:
        """The numbers of the answers that `batches` of any process visit, sorted."""
        rows = {row for batch in batches for row in batch[MICRO_BATCH].unpacked_rows()[0]}
        unanswered = sum(not self.answers.of_row(row) for row in rows.intersection(self.mask.tolist()))
        if unanswered:
            self._log({"unanswered": float(unanswered)})
        return sorted(set(gather_object([number for row in rows for number in self.answers.used(row)])))

    def _score_again(self, numbers: list[int]) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
        """Those of the answers that can still be scored, with the log-probabilities of their tokens under the present
        model and under the one that answered. The others fall back to their offline answers from now on.
        """
        answers = self.answers
        old = [answers.log_probs[number] for number in numbers]
        if not numbers or self._age == 0:
            return numbers, old, old  # the policy is the one that answered, and r is 1 whatever rounding says
        questions = [self._question(int(answers.rows[number // answers.per_question])) for number in numbers]
        new = self._score(questions, [answers.tokens[number] for number in numbers])
        finite = np.array([np.isfinite(values).all() for values in new])
        answers.status[np.array(numbers)[~finite]] = Status.NON_FINITE
        kept = np.flatnonzero(finite).tolist()
        return [numbers[place] for place in kept], [new[place] for place in kept], [old[place] for place in kept]

    def _replace(self, batch: dict[str, Any]) -> None:
        """Masked rows make room for their answers; where some cannot be used, the offline answer stands in for those."""
        micro_batch = batch[MICRO_BATCH]
        rows, counted = micro_batch.unpacked_rows()
        features, numbers, flags = [], [], []
        for row, flag in zip(rows, counted):
            offline = self._dataset[self._places[row]]
            used = self.answers.used(row)
            if len(used) < max(1, len(self.answers.of_row(row))):
                features.append(offline)
                numbers.append(NO_ANSWER)
                flags.append(flag)
            for number in used:
                answered = answered_row(self._question(row), self.answers.tokens[number])
                features.append({EXAMPLE_ID: row, **answered})
                numbers.append(number)
                flags.append(flag)
        if max(numbers) == NO_ANSWER:
            micro_batch.answers = torch.full_like(micro_batch.ids, NO_ANSWER)
            return
        device = batch["input_ids"].device
        batch.clear()
        batch.update(send_to_device(dict(self._collator(features)), device))
        micro_batch = batch[MICRO_BATCH] = take_numbered_micro_batch(batch)
        places = micro_batch.rows.cpu()
        micro_batch.answers = torch.tensor(numbers)[places].masked_fill(places == NO_EXAMPLE, NO_ANSWER).to(device)
        micro_batch.is_counted = torch.tensor(flags)[places].to(device)

    def _plan_shares(self, batch: dict[str, Any]) -> None:
        """Set the share of its row that each token's answer stands for, for the loss and for the selector."""
        micro_batch, is_label = batch[MICRO_BATCH], batch["labels"] != -100
        ids, answers = _of_tokens(micro_batch, is_label)
        micro_batch.shares = torch.ones(is_label.shape, device=is_label.device)
        micro_batch.shares[is_label] = self.shares(ids[is_label], answers[is_label])
        counted = _predicted(is_label)
        if micro_batch.is_counted is not None:
            counted = counted & micro_batch.is_counted.to(counted.device)
        micro_batch.selector_shares = torch.ones(is_label.shape, device=is_label.device)
        micro_batch.selector_shares[counted] = self.row_shares(ids[counted], answers[counted]).to(counted.device)

    def token_weights(
        self, batch: dict[str, Any], row_weights: torch.Tensor, num_items: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Factor of the loss of each token: the weight of its row, times what part of its row its answer is, times
        r.

        Args:
            batch (`dict`): a refined micro-batch.
            row_weights (`torch.Tensor`): (B, 1) or the shape of `labels`.
            num_items (`int`, *optional*): N_pool where the loss is divided by it; `None` where each micro-batch is divided
                by its own tokens.

        Returns:
            `torch.Tensor`: the shape of `labels`, float32.
        """
        micro_batch, is_label = batch[MICRO_BATCH], batch["labels"] != -100
        ids, answers = _of_tokens(micro_batch, is_label)
        weights = row_weights.to(is_label.device) * micro_batch.shares
        weights[is_label] = weights[is_label] * self.response_weights(answers[is_label])
        if num_items is None:
            kept = _predicted(is_label)
            weights = weights * (int(kept.sum()) / self.num_items(ids[kept], answers[kept]))
        return weights

    def shares(self, ids: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Share of its row that each token's answer stands for.

        Args:
            ids (`torch.Tensor`): (T,) row number of each token.
            answers (`torch.Tensor`): (T,) number of the answer it belongs to, -1 for offline answers.

        Returns:
            `torch.Tensor`: (T,) float32: 1/G for the model's own answers; for an offline answer the share of the G that it
            stands in for, 1 in rows that are not masked.
        """
        rows, place = torch.unique(ids, return_inverse=True)
        of_rows = torch.ones(len(rows), 2)  # of the row's offline answer, of one of the model's own
        for share, row in zip(of_rows, rows.tolist()):
            total = len(self.answers.of_row(row))
            if total:
                share[0], share[1] = (total - len(self.answers.used(row))) / total, 1 / total
        return of_rows.to(ids.device)[place, (answers != NO_ANSWER).long()]

    def response_weights(self, answers: torch.Tensor) -> torch.Tensor:
        """(T,) r of each token's answer, 1 for offline answers. Tokens are in the order of the batch."""
        numbers = answers.cpu()
        weights = torch.ones(len(numbers))
        for number in torch.unique(numbers[numbers != NO_ANSWER]).tolist():
            own = numbers == number
            weight = self._weights[number]
            weights[own] = weight.repeat(int(own.sum()) // len(weight))
        return weights.to(answers.device)

    def row_shares(self, ids: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """(T,), on the CPU, what each token adds to C_b = 1/G Σ_g L(y_g), L the mean (or the sum) over an answer's tokens."""
        ids, answers = ids.cpu(), answers.cpu()
        shares = self.shares(ids, answers)
        if self.args.selection_loss == "sum":
            return shares
        _, piece, counts = torch.unique(torch.stack([ids, answers]), dim=1, return_inverse=True, return_counts=True)
        is_answered = torch.isin(ids, torch.from_numpy(self.answers.rows))
        return torch.where(is_answered, shares / counts[piece], shares)

    def num_items(self, ids: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Contribution of these tokens to N_pool of equation (22), float32: their number in offline answers; the
        model's own answers count as the mean length of the last refresh, since their own would pull towards shorter
        answers.
        """
        device, ids, answers = ids.device, ids.cpu(), answers.cpu()
        items = self.shares(ids, answers).double()
        for number in torch.unique(answers[answers != NO_ANSWER]).tolist():
            items[answers == number] *= self.answers.mean_length() / len(self.answers.tokens[number])
        return items.sum().float().to(device)

    def count_items(self, batches: list[dict[str, Any]]) -> torch.Tensor:
        """N_pool of this process's batches."""
        items = torch.zeros((), device=self.args.device)
        for batch in batches:
            micro_batch, kept = batch[MICRO_BATCH], batch["labels"][:, 1:] != -100
            items += self.num_items(
                micro_batch.of_predictions(micro_batch.ids, kept),
                micro_batch.of_predictions(micro_batch.answers, kept),
            )
        return items

    def _log(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._log_one(f"online/{name}", value)

    # Files

    def write(self) -> None:
        """`generations/step-N.parquet` of the present answers, and the table of them in trackers."""
        answers = self._answers
        if answers is None or not len(answers.rows) or not self.accelerator.is_main_process:
            return
        rows, decode = answers.rows, self.generator.tokenizer.batch_decode
        generations = answers.write(
            Path(self.args.output_dir, "generations", f"step-{answers.step}.parquet"),
            [self.pool.original_row(row) for row in rows.tolist()],
            decode([self._question(row) for row in rows.tolist()]),
            decode(answers.tokens, skip_special_tokens=True),
            self.selector.weights(torch.from_numpy(rows)).numpy(),
        )
        if self.args.log_completions:
            table = completions_table(generations, answers.step, self.args.num_completions_to_print)
            self._log_table(table)
            if not answers.ratios[:, 0].any():  # not again when the ratios are known
                print_completions(table)

    def state(self) -> dict[str, torch.Tensor]:
        """State for an exact continuation."""
        state = {"online.mask": torch.from_numpy(self.mask)}
        if self._answers is not None:
            state |= {f"online.{name}": value for name, value in self._answers.state().items()}
        return state

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue where `state` left off."""
        self.mask, self._answers = state["online.mask"].numpy(), None
        if "online.step" not in state:
            return
        self._answers = Answers.from_state(
            {name.removeprefix("online."): value for name, value in state.items() if name.startswith("online.")}
        )


def _of_tokens(micro_batch: MicroBatch, is_label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers and numbers of answers of a refined micro-batch, (B, S)."""
    assert micro_batch.answers is not None, "not refined"
    return tuple(values.to(is_label.device).expand_as(is_label) for values in (micro_batch.ids, micro_batch.answers))


def _predicted(is_label: torch.Tensor) -> torch.Tensor:
    """(B, S) without the first token of each sequence, which is never predicted."""
    is_first = torch.arange(is_label.size(1), device=is_label.device) == 0
    return is_label & ~is_first
