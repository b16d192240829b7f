"""`boost_trl.compare`: the way of training that pays on one's own data."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from trl import ModelConfig

from boost_trl.comparison.cells import RESULT_NAME, Cell, run_cells, saved_results
from boost_trl.comparison.own_data.estimate import duration
from boost_trl.comparison.own_data.own_data import ALL_TRUSTED, Games, OwnData
from boost_trl.comparison.own_data.report import PAGE, PICTURE, draw_methods, make_report
from boost_trl.comparison.own_data.row_format import check_same_kind, is_trajectories
from boost_trl.comparison.own_data.verdict import Decision, decide, explain
from boost_trl.comparison.own_data.worst_rows import WorstRow, worst_rows
from boost_trl.comparison.results import Result
from boost_trl.files import write_whole
from boost_trl.hub_names import resolve_model_name


DEFAULT_FOLDER, MODEL_FOLDER, VERDICT_NAME = "outputs/compare", "model", "verdict.json"
_QUOTED = 3


@dataclass
class OwnDataResult:
    """Outcome of a comparison on one's own rows.

    Args:
        verdict (`str`): which method to use, whether weights pay, how sure that is and what the worst rows are.
        method (`str`): to use.
        decision ([`~boost_trl.comparison.own_data.verdict.Decision`]): the numbers behind it.
        table (`list[dict]`): one object per method.
        worst_rows (`list[WorstRow]`): those that weights trust least; none if all weigh the same.
        results (`list[Result]`): of every cell.
        folder (`Path`): has `report.html`, `report.md`, `results.json`, `runs.json` and `verdict.json`.
        model_folder (`Path`): the model of `method`, trained with all trusted rows.
    """

    verdict: str
    method: str
    decision: Decision
    table: list[dict[str, Any]]
    worst_rows: list[WorstRow]
    results: list[Result]
    folder: Path
    model_folder: Path


def compare(
    train: str | Dataset,
    validation: str | Dataset,
    *,
    model: str | ModelConfig,
    args: Any = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    judging_share: float = 1 / 3,
    environment: str | None = None,
    environment_kwargs: dict[str, Any] | None = None,
    num_games: int = 64,
) -> OwnDataResult:
    """Train several methods on a pool with equal numbers of updates, judge them on trusted rows that none has seen, and say
    which to use; a comparison that was killed goes on.

    Example:

    ```python
    >>> import boost_trl

    >>> result = boost_trl.compare("pool.jsonl", "trusted.jsonl", model="HuggingFaceTB/SmolLM2-135M-Instruct")
    >>> print(result.verdict)
    >>> result.model_folder
    ```

    Args:
        train (`str` or [`~datasets.Dataset`]): the pool: a file or dataset of rows for SFT, or of trajectories (rows with
            rewards), which are compared by offline RL.
        validation (`str` or [`~datasets.Dataset`]): trusted rows of the same format. Each seed cuts them anew into a part that
            methods may use and one that judges them.
        model (`str` or [`~trl.ModelConfig`]): what every method starts from; a `ModelConfig` can ask for LoRA and quantisation.
        args ([`BilevelSFTSelfRefineConfig`] or [`BilevelOfflineRLConfig`], *optional*): what all methods share. `output_dir` gets the
            results, by default `outputs/compare`.
        methods (`list[str]` or `str`, *optional*): names of `boost_trl.comparison.sft.methods`, for trajectories of
            `boost_trl.comparison.offline_rl.methods`, or `"all"`.
        seeds (`list[int]`, *optional*, defaults to `(0, 1, 2)`): of splits and training; one run of every method for each.
        judging_share (`float`, *optional*, defaults to a third): of the trusted rows, raised to 20 rows where that leaves half.
        environment (`str`, *optional*): trajectories only: judge by live games of this environment, on the trusted rows' tasks.
        environment_kwargs (`dict`, *optional*): its options.
        num_games (`int`, *optional*, defaults to `64`): games behind each score, and behind each β that is tried.

    Raises:
        OSError: if there is no such file, dataset or model.
        ValueError: for an unknown method, too few trusted rows, a stream, rows that cannot be read or differ in format, or an
            `output_dir` whose folder `model` is taken; once all have run, if every method diverged.
    """
    games = None if environment is None else Games(environment, environment_kwargs or {}, num_games)
    return OwnDataComparison(train, validation, model, args, methods, seeds, judging_share, games).run()


class OwnDataComparison:
    """A comparison that has been checked and can run.

    Arguments are those of [`compare`], whose last three are `games`; `names` is what messages call pool and trusted rows.
    """

    def __init__(
        self,
        train: str | Dataset,
        validation: str | Dataset,
        model: str | ModelConfig,
        args: Any,
        methods: Sequence[str] | None,
        seeds: Sequence[int],
        judging_share: float,
        games: Games | None,
        names: tuple[str, str] | None = None,
    ):
        if names is None:
            names = (
                train if isinstance(train, str) else "train",
                validation if isinstance(validation, str) else "validation",
            )
        pool, trusted = (_load(rows, name) for rows, name in zip((train, validation), names))
        check_same_kind(pool, trusted, *names)
        if args is not None and args.load_best_model_at_end:
            raise ValueError("`load_best_model_at_end` would choose by the rows that judge; leave it out")
        model_args = ModelConfig(model_name_or_path=model) if isinstance(model, str) else model
        given = (pool, trusted, names, args, model_args, judging_share)
        if is_trajectories(pool.column_names):
            self.data = _trajectories(*given, games)
        elif games is not None:
            raise ValueError(f"`environment` judges trajectories, and {names[0]} has no rewards; leave it out")
        else:
            self.data = _sft(*given)
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError(f"`seeds` must be different numbers from 0 up, at least one, got {list(seeds)}")
        self.seeds = list(seeds)
        self.methods = self.data.choose(methods)
        self.folder = self.data.comparison.folder
        _check_model_folder(self.folder, model_args.model_name_or_path)

    def run(self) -> OwnDataResult:
        """Run what has no result yet, judge, keep the chosen method's model and write the report."""
        start = time.perf_counter()
        data, state = self.data, PartialState()
        cells = [Cell(method, seed) for seed in self.seeds for method in self.methods]
        self._announce(cells)
        results = run_cells(data.comparison, cells)
        judgement = data.judgement(results)
        decision = decide(judgement)
        data.prepare_kept([result for result in results if result.method == decision.method])
        kept = Cell(decision.method, self.seeds[0], ALL_TRUSTED)
        needed = data.comparison.methods[decision.method].needs
        run_cells(data.comparison, [*([] if needed is None else [replace(kept, method=needed)]), kept])
        worst = self._worst_rows(decision)
        answers = self._answers(results, judgement, decision)
        quoted = [_quoted(worst, decision.weighted)] if worst and decision.weighted else []
        verdict = " ".join([*answers.values(), *quoted])
        report = make_report(data, results, judgement, answers, worst, self._compared(), verdict)
        found = OwnDataResult(
            verdict, decision.method, decision, report.rows, worst, results, self.folder, self.folder / MODEL_FOLDER
        )
        if state.is_main_process:
            shutil.rmtree(found.model_folder, ignore_errors=True)
            shutil.copytree(
                data.comparison.run_folder(kept),
                found.model_folder,
                ignore=shutil.ignore_patterns("checkpoint-*", RESULT_NAME, "example_weights"),
            )
            draw_methods(report.rows, judgement, self.folder / PICTURE)
            self._write(found, report)
            report.print()
            print(
                f"\n{self.folder / PAGE} has all of it and a picture, for any browser; it took "
                f"{duration(time.perf_counter() - start)}"
            )
        state.wait_for_everyone()
        return found

    def _compared(self) -> str:
        data = self.data
        what = (
            f"{_count(self.methods, 'way')} of training on a pool of {len(data.pool)} rows of mixed quality and {len(data.trusted)} "
            f"trusted rows, with {data.num_updates} updates each, judged by trusted rows that they had not seen "
            f"({_count(self.seeds, 'split')}). Some of them learn *weights*: how much each row of the pool counts."
        )
        return " ".join([what, *data.remarks()])

    def _what(self, cells: Sequence[Cell]) -> str:
        data = self.data
        return (
            f"{_count(self.methods, 'method')} × {_count(self.seeds, 'split')} of {len(data.trusted)} trusted rows, on a pool of "
            f"{len(data.pool)} rows: {_count(cells, 'run')} of {data.num_updates} updates, and the chosen method's once more with all "
            "trusted rows"
        )

    def _announce(self, cells: Sequence[Cell]) -> None:
        """Say how many runs there are and, from a few timed updates, how long they will take."""
        data, is_main = self.data, PartialState().is_main_process
        done = {(result.method, result.seed) for result in saved_results(data.comparison, cells)}
        left = [cell for cell in cells if (cell.method, cell.seed) not in done]
        if is_main:
            print(self._what(cells) + (f"; {len(done)} of them are there already" if done else ""))
            for remark in data.remarks():
                print(remark)
        if not left:
            return
        if is_main:
            print("Timing a few updates … ", end="", flush=True)
        costs = data.estimate(self.methods)
        seconds = sum(costs.seconds[cell.method] for cell in left) + max(costs.seconds.values())
        if is_main:
            print(f"about {duration(seconds)}, with {costs.memory / 2**30:.1f} GiB of memory", flush=True)

    def _worst_rows(self, decision: Decision) -> list[WorstRow]:
        if decision.weighted is None:
            return []
        scores = [self.data.scores(Cell(decision.weighted, seed)) for seed in self.seeds]
        worst = worst_rows(self.data.pool, scores)
        return [replace(row, row=int(self.data.pool_rows[row.row])) for row in worst]

    def _answers(self, results, judgement, decision: Decision) -> dict[str, str]:
        """The verdict by question."""
        data = self.data
        answers = explain(judgement, decision, data.judged_on(results), data.plain)
        for name in [name for name in (decision.weighted, *decision.equal) if name is not None][:1]:
            confidence = data.confidence([result for result in results if result.method == name])
            answers["How sure?"] = " ".join(filter(None, (answers.get("How sure?"), confidence)))
        return {question: answer for question, answer in answers.items() if answer}

    def _write(self, found: OwnDataResult, report) -> None:
        report.write(self.folder)
        decision = asdict(found.decision) | {"weights_pay": found.decision.weights_pay}
        content = {"verdict": found.verdict, **decision, "worst_rows": [asdict(row) for row in found.worst_rows]}
        write_whole(self.folder / VERDICT_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _sft(pool: Dataset, trusted: Dataset, names, args, model_args: ModelConfig, judging_share: float) -> OwnData:
    from boost_trl.comparison.own_data.sft import SFTOwnData
    from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig

    args = BilevelSFTSelfRefineConfig(DEFAULT_FOLDER) if args is None else args
    return SFTOwnData(pool, trusted, names, args, model_args, judging_share)


def _trajectories(
    pool: Dataset,
    trusted: Dataset,
    names,
    args,
    model_args: ModelConfig,
    judging_share: float,
    games: Games | None,
) -> OwnData:
    from boost_trl.comparison.own_data.trajectories import TrajectoryOwnData
    from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig

    args = BilevelOfflineRLConfig(DEFAULT_FOLDER) if args is None else args
    return TrajectoryOwnData(pool, trusted, names, args, model_args, judging_share, games)


def _check_model_folder(folder: Path, base_model: str) -> None:
    """Raises:
    ValueError: if the folder of the chosen method's model holds what a comparison has not written there.
    """
    target, base = (folder / MODEL_FOLDER).resolve(), Path(resolve_model_name(base_model)).resolve()
    if base.exists() and base.is_relative_to(target):
        raise ValueError(
            f"the chosen method's model would take the place of {base_model}, which every method starts from; name another "
            "`output_dir`"
        )
    is_ours = (folder / VERDICT_NAME).exists() or any(folder.glob(f"runs/*{ALL_TRUSTED}*"))
    if target.exists() and not is_ours:
        raise ValueError(f"{folder / MODEL_FOLDER} is there already and would be replaced; name another `output_dir`")


def _load(rows: str | Dataset, name: str) -> Dataset:
    if isinstance(rows, str):
        from boost_trl.data.row_files import load_rows

        return load_rows(rows)
    if isinstance(rows, IterableDataset):
        raise ValueError(
            f"{name} is a stream, and methods draw and weigh its rows by number; load it: no `streaming=True`"
        )
    if not isinstance(rows, Dataset):
        raise ValueError(f"{name} must be a file, a name or one `Dataset`, got {type(rows).__name__}")
    return rows


def _quoted(worst: Sequence[WorstRow], method: str) -> str:
    shown = "; ".join(f"row {row.row} (weight {row.weight:.2g}): {row.text}" for row in worst[:_QUOTED])
    return f"The worst rows by `{method}`: {shown}."


def _count(things: Sequence, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) > 1)}"
