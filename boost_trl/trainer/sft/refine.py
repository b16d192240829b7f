"""Online self-refining: masked questions are trained on the model's own answers, weighted by importance ratios."""

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard, SeedableRandomSampler
from accelerate.utils import gather_object, send_to_device
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, SequentialSampler

from boost_trl.selection import importance_ratios, response_weights
from boost_trl.trainer.sft.answers import Answers, completions_table, log_completions, print_completions
from boost_trl.trainer.sft.example_ids import (
    EXAMPLE_ID,
    IS_COUNTED,
    NO_EXAMPLE,
    ExampleIdCollator,
    ids_of_predictions,
    rows_in_batch,
)
from boost_trl.trainer.sft.generation import (
    Status,
    VLLMAnswers,
    answer_start,
    answered_row,
    end_tokens,
    examine,
    generate_answers,
    score_answers,
)
from boost_trl.trainer.sft.prepared_rows import rows_without_question


if TYPE_CHECKING:
    from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


ANSWER = "_answer"
NO_ANSWER = -1  # a token of an offline answer, or padding


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


class VisitForecast:
    """Places of the dataset that the next optimizer steps will read.

    Args:
        dataloader ([`~torch.utils.data.DataLoader`]): the prepared training loader.
        num_processes (`int`): over which its batches are dealt out in turn.
        batch_size (`int`): rows per process and micro-batch.
        accumulation_steps (`int`): micro-batches per optimizer step.
    """

    def __init__(self, dataloader: DataLoader, num_processes: int, batch_size: int, accumulation_steps: int):
        self.steps_per_epoch = math.ceil(len(dataloader) / accumulation_steps)
        self.rows_per_step = batch_size * num_processes * accumulation_steps
        self.rows_per_epoch = len(dataloader) * batch_size * num_processes
        self.fills_last_batch = num_processes > 1
        batch_sampler = dataloader.batch_sampler
        is_known = isinstance(dataloader, DataLoaderShard)
        while hasattr(batch_sampler, "batch_sampler"):
            is_known = is_known and not batch_sampler.split_batches
            batch_sampler = batch_sampler.batch_sampler
        sampler = batch_sampler.sampler
        is_known = is_known and isinstance(sampler, (SeedableRandomSampler, SequentialSampler))
        self.sampler = sampler if is_known else None

    def places(self, first_step: int, last_step: int) -> np.ndarray | None:
        """Places read in steps `first_step` ≤ k < `last_step`, sorted; `None` if all may be, or it cannot be foreseen."""
        if self.sampler is None or last_step - first_step >= 2 * self.steps_per_epoch:
            return None
        pieces = [np.zeros(0, np.int64)]
        while first_step < last_step:
            epoch, step = divmod(first_step, self.steps_per_epoch)
            count = min(last_step - first_step, self.steps_per_epoch - step)
            pieces.append(self._order(epoch)[step * self.rows_per_step : (step + count) * self.rows_per_step])
            first_step += count
        return np.unique(np.concatenate(pieces))

    def _order(self, epoch: int) -> np.ndarray:
        sampler = copy.copy(self.sampler)
        if isinstance(sampler, SeedableRandomSampler):
            sampler.generator = torch.Generator()
            sampler.set_epoch(epoch)
        order = np.fromiter(sampler, np.int64)
        if self.fills_last_batch:  # with the first rows of the epoch
            return np.resize(order, self.rows_per_epoch)
        return order[: self.rows_per_epoch]


class OnlineAnswers:
    """Puts the model's own answers in the place of masked rows.

    Args:
        trainer ([`BilevelSFTSelfRefineTrainer`]): its data, selector and arguments are used.

    Raises:
        ValueError: if the share R masks no row, or the data does not tell where questions end.
    """

    def __init__(self, trainer: "BilevelSFTSelfRefineTrainer"):
        self.trainer, self.args = trainer, trainer.args
        if "labels" not in trainer.train_dataset.column_names:
            raise ValueError(
                "`online_ratio` needs prepared text: `train_dataset` has no tokens yet when training starts, as with images"
            )
        self._dataset = trainer._remove_unused_columns(trainer.train_dataset).with_format(None)
        self._ids = np.asarray(self._dataset[EXAMPLE_ID][:])
        self._places = {row: place for place, row in enumerate(self._ids.tolist())}
        self._check_questions()
        self.mask = draw_mask(trainer.pool.num_examples, self.args.online_ratio, self.args.seed)
        if not len(self.mask):
            raise ValueError(
                f"`online_ratio` {self.args.online_ratio} of {trainer.pool.num_examples} rows is less than one row"
            )
        self.answers: Answers | None = None
        self.vllm = VLLMAnswers(trainer) if self.args.use_vllm else None
        self._weights: dict[int, torch.Tensor] = {}

    def begin_training(self, dataloader: DataLoader) -> None:
        trainer = self.trainer
        self._forecast = VisitForecast(
            dataloader,
            trainer.accelerator.num_processes,
            trainer._train_batch_size,
            self.args.gradient_accumulation_steps,
        )
        self._collator = ExampleIdCollator(trainer.data_collator, trainer.padding_free)

    # Refreshes

    def begin_window(self, batches: list[dict[str, Any]]) -> None:
        """New answers where they are due; then `batches`, changed in place, hold them, and their weights are known."""
        step = self.trainer.state.global_step
        if self.answers is None or (step % self.args.generation_interval == 0 and self.answers.step != step):
            self._refresh(step)
        self._weigh(batches)
        for batch in batches:
            self._replace(batch)

    def _refresh(self, step: int) -> None:
        trainer, seed = self.trainer, self.args.seed * 1_000_003 + step
        self.write()
        metrics = {}
        if self.args.mask == "dynamic":
            mask = draw_mask(
                trainer.pool.num_examples, self.args.online_ratio, seed, trainer.selector.logits().numpy()
            )
            if self.answers is not None:
                metrics["mask_turnover"] = len(np.setdiff1d(mask, self.mask)) / len(mask)
            self.mask = mask
        interval = self.args.generation_interval
        places = self._forecast.places(step, min(step - step % interval + interval, trainer.state.max_steps))
        rows = np.intersect1d(self.mask, self._ids if places is None else self._ids[places])

        tokenizer, ends = trainer._tokenizer, end_tokens(trainer)
        questions = [self._question(row) for row in rows.tolist() for _ in range(self.args.num_generations)]
        tokens = generate_answers(trainer, questions, seed, self.vllm)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        status = np.array([examine(answer, ends, text) for answer, text in zip(tokens, texts)], dtype=np.int8)
        good = np.flatnonzero(status == Status.USED).tolist()
        log_probs = [np.zeros(0, np.float32)] * len(tokens)
        scored = score_answers(trainer, [questions[number] for number in good], [tokens[number] for number in good])
        for number, values in zip(good, scored):
            if np.isfinite(values).all():
                log_probs[number] = values
            else:
                status[number] = Status.NON_FINITE
        self.answers = Answers(step, rows, tokens, log_probs, status, np.zeros((len(tokens), 3)))
        self.write()

        if len(tokens):
            metrics |= {f"{kind.name.lower()}_share": float(np.mean(status == kind)) for kind in Status if kind}
            metrics["fallback_share"] = float(np.mean(status != Status.USED))
            metrics["unfinished_share"] = float(np.mean([not answer or answer[-1] not in ends for answer in tokens]))
            metrics["answer_length"] = self.answers.mean_length()
        self._log(metrics)

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
                f"row {self.trainer.pool.original_row(self._ids[places[0]])} of `train_dataset` has no question ({len(places)} of {len(self._ids)} rows "
                "have none): no token that is not learned comes before its answer. `online_ratio` needs rows with "
                "`prompt` and `completion`, or `messages` with `assistant_only_loss=True`; with such rows, set "
                "`completion_only_loss=True` (or leave it at `None`), and raise `max_length` if "
                "`truncation_mode='keep_end'` cuts questions off"
            )

    # One optimizer batch

    def _weigh(self, batches: list[dict[str, Any]]) -> None:
        """r_g, or what `response_weighting` puts in its place, of the answers that this window visits on any process."""
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
        return self.trainer.state.global_step - self.answers.step

    def _visited(self, batches: list[dict[str, Any]]) -> list[int]:
        """The numbers of the answers that `batches` of any process visit, sorted."""
        rows = {row for batch in batches for row in self._rows(batch)[0]}
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
        new = score_answers(self.trainer, questions, [answers.tokens[number] for number in numbers])
        finite = [bool(np.isfinite(values).all()) for values in new]
        answers.status[[number for number, ok in zip(numbers, finite) if not ok]] = Status.NON_FINITE
        numbers, new, old = ([value for value, ok in zip(values, finite) if ok] for values in (numbers, new, old))
        return numbers, new, old

    def _rows(self, batch: dict[str, Any]) -> tuple[list[int], list[bool]]:
        """Row number of each row of a batch, and whether the selector counts it."""
        counted = batch.get(IS_COUNTED, torch.ones_like(batch[EXAMPLE_ID], dtype=torch.bool))
        columns = torch.broadcast_tensors(rows_in_batch(batch), batch[EXAMPLE_ID], counted)
        place, row, counted = (column.flatten().cpu().numpy() for column in columns)
        _, first = np.unique(place[row != NO_EXAMPLE], return_index=True)
        return row[row != NO_EXAMPLE][first].tolist(), counted[row != NO_EXAMPLE][first].tolist()

    def _replace(self, batch: dict[str, Any]) -> None:
        """Masked rows make room for their answers; where some cannot be used, the offline answer stands in for those."""
        rows, counted = self._rows(batch)
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
            batch[ANSWER] = torch.full_like(batch[EXAMPLE_ID], NO_ANSWER)
            return
        device = batch["input_ids"].device
        batch.clear()
        batch.update(self._collator(features))
        places = rows_in_batch(batch)
        batch[ANSWER] = torch.tensor(numbers)[places].masked_fill(places == NO_EXAMPLE, NO_ANSWER)
        batch[IS_COUNTED] = torch.tensor(flags)[places]
        batch.update(send_to_device(dict(batch), device))

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
            kept = batch["labels"][:, 1:] != -100
            ids, answers = (ids_of_predictions(batch[name], kept.size(1)) for name in (EXAMPLE_ID, ANSWER))
            items += self.num_items(ids[kept], answers[kept])
        return items

    def _log(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.trainer._metrics["train"][f"online/{name}"].append(value)

    # Files

    def write(self) -> None:
        """`generations/step-N.parquet` of the present answers, and the table of them in trackers."""
        trainer, answers = self.trainer, self.answers
        if answers is None or not len(answers.rows) or not trainer.is_world_process_zero():
            return
        rows, decode = answers.rows, trainer._tokenizer.batch_decode
        generations = answers.write(
            Path(self.args.output_dir, "generations", f"step-{answers.step}.parquet"),
            [trainer.pool.original_row(row) for row in rows.tolist()],
            decode([self._question(row) for row in rows.tolist()]),
            decode(answers.tokens, skip_special_tokens=True),
            trainer.selector.weights(torch.from_numpy(rows)).numpy(),
        )
        if self.args.log_completions:
            table = completions_table(generations, answers.step, self.args.num_completions_to_print)
            log_completions(table, self.args.report_to)
            if not answers.ratios[:, 0].any():  # not again when the ratios are known
                print_completions(table)

    def state(self) -> dict[str, torch.Tensor]:
        """State for an exact continuation."""
        state = {"online.mask": torch.from_numpy(self.mask)}
        if self.answers is not None:
            state |= {f"online.{name}": value for name, value in self.answers.state().items()}
        return state

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue where `state` left off."""
        self.mask, self.answers = state["online.mask"].numpy(), None
        if "online.step" not in state:
            return
        self.answers = Answers.from_state(
            {name.removeprefix("online."): value for name, value in state.items() if name.startswith("online.")}
        )
