"""[B] Table 1 from the results of a [`Grid`]: scores with the paper's beside them, paired differences, a picture."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boost_trl.comparison.offline_rl.arguments import PAPER_METHODS
from boost_trl.comparison.offline_rl.grid import ALGORITHMS, CONTROLS, RECIPE, SIZES, Setting
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.report import write_page
from boost_trl.comparison.results import Result
from boost_trl.comparison.significance import Estimate, estimate, paired_estimate, sign_test
from boost_trl.files import write_whole
from boost_trl.pictures import figure
from boost_trl.tables import markdown_table, plus_minus, text_table


# Mean and standard error over 64 games of Vanilla, Vanilla+Syn, Bilevel Only and BOOST.
_PAPER = {
    ("twenty_questions", "mc", "low"): ((1.01, 0.13), (1.01, 0.11), (2.90, 0.22), (3.46, 0.22)),
    ("twenty_questions", "mc", "high"): ((2.22, 0.18), (2.19, 0.23), (3.83, 0.23), (3.48, 0.21)),
    ("car_dealer", "mc", "low"): ((26.73, 0.39), (31.08, 0.00), (36.28, 2.23), (40.92, 1.86)),
    ("car_dealer", "mc", "high"): ((32.27, 0.39), (35.09, 0.39), (41.31, 1.71), (41.42, 1.71)),
    ("webshop", "mc", "low"): ((0.24, 0.02), (0.23, 0.02), (0.32, 0.03), (0.40, 0.03)),
    ("webshop", "mc", "high"): ((0.38, 0.02), (0.31, 0.02), (0.43, 0.03), (0.45, 0.03)),
    ("twenty_questions", "ilql", "low"): ((0.38, 0.08), (0.45, 0.09), (0.51, 0.11), (0.53, 0.10)),
    ("twenty_questions", "ilql", "high"): ((2.60, 0.21), (2.04, 0.19), (5.38, 0.38), (5.83, 0.28)),
    ("car_dealer", "ilql", "low"): ((27.22, 0.19), (25.94, 0.93), (29.08, 2.01), (34.91, 2.37)),
    ("car_dealer", "ilql", "high"): ((35.33, 0.78), (33.00, 0.78), (37.55, 2.40), (37.36, 2.39)),
    ("webshop", "ilql", "low"): ((0.30, 0.02), (0.27, 0.02), (0.32, 0.03), (0.38, 0.02)),
    ("webshop", "ilql", "high"): ((0.31, 0.02), (0.27, 0.02), (0.41, 0.02), (0.36, 0.02)),
}
PAPER = {
    Setting(*place): dict(zip(("vanilla", "vanilla_synthetic", "bilevel", "boost"), figures))
    for place, figures in _PAPER.items()
}
ENVIRONMENTS = {"twenty_questions": "20 Questions", "car_dealer": "Car Dealer", "webshop": "WebShop"}
COMPARED = ("boost", RECIPE)
PICTURE = "table_1.png"
COLOURS = {"low": "C0", "high": "C1"}
NOTES = (
    "Scores are the environment's: questions or turns left, or WebShop's step-discounted match; mean ± standard error over "
    "seeds, each with its own data and, but for Car Dealer, world (in brackets over games alone, within these seeds; with one "
    "seed only that). **Bold**: the highest of a row, oracles left out. *Paper*: mean ± standard error over 64 games of one "
    "run. Worlds of the tiny preset are smaller than the paper's, so that levels cannot be compared with its, only orders.\n\n"
    "Differences are paired by seed and game, since all methods play the same tasks. A star: p < .05, two-sided, by Student's "
    "t over seeds (with one seed over games, which says nothing about other seeds); three seeds show large differences only, "
    "and of 100 comparisons of equals 5 get a star. Sign test: over the rows of the table."
)

Scores = dict[int, list[float | None]]


def scores_by_method(results: Sequence[Result]) -> dict[Setting, dict[str, Scores]]:
    """Scores of the games by setting, method and seed."""
    found: dict[Setting, dict[str, Scores]] = {}
    for result in results:
        of_setting = found.setdefault(Setting.of(result.setting), {})
        of_setting.setdefault(result.method, {})[result.seed] = result["game_scores"]
    return found


def mean_score(scores: Scores) -> Estimate:
    """The mean over seeds of the mean over games."""
    return estimate([[score for score in games if score is not None] for games in scores.values()])


def score_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One object per setting and method, for `results.json`."""
    rows = []
    for setting, methods in scores_by_method(results).items():
        for name, scores in methods.items():
            score, paper = mean_score(scores), PAPER.get(setting, {}).get(name, (None, None))
            rows.append(
                {
                    **setting._asdict(),
                    "method": name,
                    "label": METHODS[name].label,
                    "score_mean": score.mean,
                    "score_se_over_seeds": score.seeds_error,
                    "score_se_over_games": score.items_error,
                    "seeds": score.seeds,
                    "paper_mean": paper[0],
                    "paper_se": paper[1],
                }
            )
    return rows


def scores_table(results: Sequence[Result]) -> list[list[str]]:
    """Header and cells: every setting's scores (columns: methods) and, below them, the paper's."""
    by_setting = scores_by_method(results)
    names = _in_order(by_setting)
    lines = [["algorithm", "environment", "data", *(METHODS[name].label for name in names)]]
    for setting in _sorted(by_setting):
        means = {name: mean_score(scores) for name, scores in by_setting[setting].items()}
        candidates = [name for name in means if not METHODS[name].needs_planted_noise]
        best = max(candidates, key=lambda name: means[name].mean, default=None)
        cells = [_score_text(means[name], name == best) if name in means else "" for name in names]
        lines.append([*_titles(setting), *cells])
        paper = PAPER.get(setting, {})
        lines.append(
            ["", "*paper*", "", *(f"*{plus_minus(*paper[name])}*" if name in paper else "" for name in names)]
        )
    return lines


def differences_table(results: Sequence[Result], method: str) -> str:
    """Markdown: `method` minus every other (columns), by setting, and over the settings how often it is higher; empty if
    nothing was compared with it."""
    by_setting = scores_by_method(results)
    others = [name for name in _in_order(by_setting) if name != method]
    found = {
        setting: {name: paired_estimate(of[method], of[name]) for name in others if name in of}
        for setting, of in by_setting.items()
        if method in of
    }
    if not found or not others:
        return ""
    lines = [[f"{METHODS[method].label} minus", "", "", *(METHODS[name].label for name in others)]]
    for setting in _sorted(found):
        differences = [found[setting].get(name) for name in others]
        lines.append([*_titles(setting), *("" if each is None else each.text("+.2f") for each in differences)])
    lines += _summary([[each for of in found.values() if (each := of.get(name)) is not None] for name in others])
    return markdown_table(lines, "lll" + "r" * len(others))


def findings(results: Sequence[Result]) -> list[str]:
    """The order of the paper's four methods, there and here, and what the controls do, losses included."""
    by_setting, lines = scores_by_method(results), []
    for name in PAPER_METHODS[:-1]:
        both = [of for of in by_setting.values() if {"boost", name} <= of.keys()]
        here = [each for of in both if (each := paired_estimate(of["boost"], of[name])) is not None]
        there = [PAPER[each]["boost"][0] - PAPER[each][name][0] for each in by_setting if each in PAPER]
        if here and there:
            lines.append(
                f"BOOST is above {METHODS[name].label} in {sum(each > 0 for each in there)} of {len(there)} rows of the paper; "
                f"here in {sum(each.mean > 0 for each in here)} of {len(here)}, {_starred(here)}."
            )
    for method in COMPARED:
        best: list[Estimate] = []
        for of in by_setting.values():
            controls = [name for name in of if name in CONTROLS]
            if method in of and controls:
                control = max(controls, key=lambda name: mean_score(of[name]).mean)
                found = paired_estimate(of[method], of[control])
                best += [] if found is None else [found]
        if best:
            lines.append(
                f"{METHODS[method].label} is above the best control of its row, chosen by these same games, in "
                f"{sum(each.mean > 0 for each in best)} of {len(best)}, {_starred(best)}."
            )
    return lines


def draw_scores(results: Sequence[Result], path: Path) -> None:
    """One panel per environment and algorithm: every method's score, low and high data, ± standard error."""
    by_setting = scores_by_method(results)
    names = _in_order(by_setting)
    environments = [name for name in ENVIRONMENTS if any(setting.environment == name for setting in by_setting)]
    algorithms = [name for name in ALGORITHMS if any(setting.algorithm == name for setting in by_setting)]
    sizes = [size for size in SIZES if any(setting.size == size for setting in by_setting)]
    shape = {"figsize": (1.5 + 4.2 * len(environments), 1.9 + 2.6 * len(algorithms)), "squeeze": False, "sharex": True}
    with figure(path, len(algorithms), len(environments), **shape) as (drawn, panels):
        handles = {}
        for row, algorithm in enumerate(algorithms):
            for column, environment in enumerate(environments):
                axes = panels[row][column]
                for number, size in enumerate(sizes):
                    of = by_setting.get(Setting(environment, algorithm, size), {})
                    found = [(x, mean_score(of[name])) for x, name in enumerate(names) if name in of]
                    if not found:
                        continue
                    places = [x + 0.24 * (number - (len(sizes) - 1) / 2) for x, _ in found]
                    means, errors = [score.mean for _, score in found], [score.error for _, score in found]
                    handles[f"{size} data, ± standard error"] = axes.errorbar(
                        places, means, errors, fmt="o", capsize=3, color=COLOURS[size]
                    )
                axes.set_title(f"{ENVIRONMENTS[environment]}, {algorithm.upper()}")
                axes.set_xticks(range(len(names)), [METHODS[name].label for name in names], rotation=60, ha="right")
                axes.set_xlim(-0.5, len(names) - 0.5)
                axes.grid(axis="y", alpha=0.3)
            panels[row][0].set_ylabel("score, higher is better")
        drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


def _summary(differences: Sequence[Sequence[Estimate]]) -> list[list[str]]:
    counts = [(sum(each.mean > 0 for each in column), sum(each.mean < 0 for each in column)) for column in differences]
    starred = [
        (sum(e.p < 0.05 and e.mean > 0 for e in column), sum(e.p < 0.05 and e.mean < 0 for e in column))
        for column in differences
    ]
    return [
        ["rows above : below", "", "", *(f"{above} : {below}" for above, below in counts)],
        ["with a star", "", "", *(f"{above} : {below}" for above, below in starred)],
        ["sign test, p", "", "", *(f"{sign_test(above, below):.3f}" for above, below in counts)],
    ]


def _starred(differences: Sequence[Estimate]) -> str:
    clear = [each.mean for each in differences if each.p < 0.05]
    return f"clearly above in {sum(mean > 0 for mean in clear)} and clearly below in {sum(mean < 0 for mean in clear)}"


def _score_text(score: Estimate, is_best: bool) -> str:
    text = score.text() if score.seeds_error is None else f"{score.text()} ({score.items_error:.2f})"
    return f"**{text}**" if is_best else text


def _in_order(by_setting: dict[Setting, dict[str, Scores]]) -> list[str]:
    return [name for name in METHODS if any(name in of for of in by_setting.values())]


def _sorted(settings: Iterable[Setting]) -> list[Setting]:
    places = ALGORITHMS, tuple(ENVIRONMENTS), SIZES
    return sorted(
        settings,
        key=lambda each: tuple(
            order.index(part) for order, part in zip(places, (each.algorithm, each.environment, each.size))
        ),
    )


def _titles(setting: Setting) -> list[str]:
    return [setting.algorithm.upper(), ENVIRONMENTS[setting.environment], setting.size]


def write_report(folder: Path, results: Sequence[Result], command: str) -> str:
    """Write `results.json`, `runs.json`, the picture, `report.md` and `report.html`; returns what the terminal shows.

    Args:
        folder (`Path`): of the grid.
        results (`Sequence[Result]`): of all cells so far.
        command (`str`): that makes them.
    """
    rows = score_rows(results)
    write_whole(folder / "results.json", json.dumps(rows, indent=1) + "\n")
    write_whole(folder / "runs.json", json.dumps([result.to_dict() for result in results]) + "\n")
    draw_scores(results, folder / PICTURE)
    table = scores_table(results)
    said = "\n".join(f"- {line}" for line in findings(results))
    differences = [differences_table(results, method) for method in COMPARED]
    title = "Table 1 of BOOST, reproduced"
    parts = [
        f"# {title}",
        f"```\n{command}\n```",
        markdown_table(table, "lll" + "r" * (len(table[0]) - 3)),
        said,
        f"![Scores of all methods]({PICTURE})",
        *differences,
        NOTES,
    ]
    write_page(folder, title, "\n\n".join(part for part in parts if part) + "\n")
    return f"{text_table(table)}\n\n{said}"
