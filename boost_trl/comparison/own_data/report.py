"""Report of a comparison on one's own data: verdict, picture, table and worst rows, as one page that needs no other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from boost_trl.comparison.own_data.own_data import OwnData
from boost_trl.comparison.own_data.verdict import Judgement
from boost_trl.comparison.own_data.worst_rows import WorstRow, worst_rows_table
from boost_trl.comparison.report import Report
from boost_trl.comparison.results import Result, aggregate
from boost_trl.pictures import figure
from boost_trl.tables import markdown_table, number, plus_minus


PICTURE, PAGE = "methods.png", "report.html"
_MEANS = ("weights_auc", "effective_sample_size", "num_rows", "seconds")


@dataclass
class OwnDataReport(Report):
    """A [`Report`] for readers who know nothing of the comparison.

    Args:
        answers (`dict[str, str]`): the verdict by question.
        compared (`str`): what was compared, in words.
        worst (`Sequence[WorstRow]`): rows that weights trust least.
    """

    answers: Mapping[str, str] = field(default_factory=dict)
    compared: str = ""
    worst: Sequence[WorstRow] = ()

    def parts(self) -> list[str]:
        """The report: the answers first, then what they rest on."""
        parts = [
            f"# {self.title}",
            self.compared,
            "\n".join(f"- **{question}** {answer}" for question, answer in self.answers.items()),
            *self.sections,
            "## All methods",
            markdown_table(self.table()),
            "\n".join(f"- `{name}`: {what}." for name, what in self.about.items()),
            self.notes,
        ]
        if self.worst:
            meaning = "By their weights, of mean 1. Read some of them: it is the quickest way to learn what is wrong."
            parts += ["## Rows of the pool that weights trust least", meaning, worst_rows_table(self.worst)]
        settings = ", ".join(f"`{name}={value}`" for name, value in self.settings.items())
        return [*parts, "## Settings", f"{settings}."]


def make_report(
    data: OwnData,
    results: Sequence[Result],
    judgement: Judgement,
    answers: Mapping[str, str],
    worst: Sequence[WorstRow],
    compared: str,
    verdict: str,
) -> OwnDataReport:
    """The report, whose table has the best method first; `draw_methods` draws its picture.

    Args:
        data (`OwnData`): what was compared on.
        results (`Sequence[Result]`): of every method and seed.
        judgement (`Judgement`): of them.
        answers (`dict[str, str]`): the verdict by question.
        worst (`Sequence[WorstRow]`): rows that weights trust least.
        compared (`str`): what was compared, in words.
        verdict (`str`): answers and worst rows in one paragraph.
    """
    rows = _table(data, results, judgement)
    return OwnDataReport(
        title="Which way of training pays",
        rows=rows,
        results=results,
        columns=_columns(judgement, has_auc=any(row["weights_auc"] is not None for row in rows)),
        findings=[verdict],
        settings={name: value for name, value in data.options.items() if type(value) in (bool, int, float, str)},
        notes=(
            f"`{judgement.measure}`: of {data.judged_on(results)}. `gain`: mean of the paired differences to "
            f"`{rows[0]['reference']}`. Standard errors are over rows and splits together. n_eff = (Σw)²/Σw². Each method had "
            f"{data.num_updates} updates, or as many fewer as its name says."
        ),
        sections=[f"![{judgement.measure} of each method]({PICTURE})\n\nMean ± standard error; one dot per split."],
        answers=answers,
        compared=compared,
        about=_about(data, results),
        worst=worst,
    )


def _about(data: OwnData, results: Sequence[Result]) -> dict[str, str]:
    chosen = data.chosen(results)
    about = {}
    for name in dict.fromkeys(result.method for result in results):
        parts = [data.comparison.methods[name].about, f"chosen was {chosen[name]}" if name in chosen else None]
        if any(parts):
            about[name] = "; ".join(filter(None, parts))
    return about


def _table(data: OwnData, results: Sequence[Result], judgement: Judgement) -> list[dict]:
    reference = data.plain if data.plain in judgement.values else results[0].method

    def judged(group: Sequence[Result]) -> dict:
        name = group[0].method
        mean, error = judgement.level(name)
        gain, gain_error = judgement.gain(name, reference)
        return {
            "value": mean,
            "value_se": error,
            "of_seeds": [] if math.isnan(mean) else np.nanmean(judgement.values[name], axis=1).tolist(),
            "reference": reference,
            "gain": gain,
            "gain_se": gain_error,
            "learns_weights": data.weighted(name),
        }

    rows, sign = aggregate(results, _MEANS, judged), 1 if judgement.lower_is_better else -1
    return sorted(rows, key=lambda row: (math.isnan(row["value"]), sign * row["value"]))


def _columns(judgement: Judgement, has_auc: bool) -> dict:
    def gain(row: dict) -> str:
        is_empty = row["method"] == row["reference"] or math.isnan(row["gain"])
        return "" if is_empty else plus_minus(row["gain"], row["gain_se"], "+.3f")

    columns = {
        "method": lambda row: f"{row['label']} [{row['method']}]",
        judgement.measure: lambda row: (
            "diverged" if math.isnan(row["value"]) else plus_minus(row["value"], row["value_se"], judgement.style)
        ),
        "gain": gain,
        "n_eff / rows": lambda row: f"{row['effective_sample_size']:.0f} / {row['num_rows']:.0f}",
        "AUC": lambda row: number(row["weights_auc"], ".3f"),
        "seconds": lambda row: number(row["seconds"], ".1f"),
    }
    return columns if has_auc else {name: cell for name, cell in columns.items() if name != "AUC"}


def draw_methods(rows: Sequence[dict], judgement: Judgement, path: Path) -> None:
    """Mean ± standard error of every method and its value with each seed.

    Args:
        rows (`Sequence[dict]`): of the report.
        judgement (`Judgement`): what the values are.
        path (`Path`): of the picture.
    """
    with figure(path, figsize=(6.5, 1 + 0.45 * len(rows))) as (_, axes):
        for place, row in enumerate(reversed(rows)):
            colour = "tab:blue" if row["learns_weights"] else "tab:gray"
            axes.errorbar(row["value"], place, xerr=row["value_se"], fmt="D", color=colour, capsize=3)
            axes.plot(row["of_seeds"], [place] * len(row["of_seeds"]), ".", color=colour, alpha=0.5)
        axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)])
        axes.set_xlabel(f"{judgement.measure} ({'lower' if judgement.lower_is_better else 'higher'} is better)")
        axes.set_title("Blue: with learned weights")
