"""First part of a comparison's report: who won, which rows weights found bad, and a game of the winner."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from boost_trl.analysis.extreme_rows import extreme_rows
from boost_trl.analysis.run_files import Run
from boost_trl.analysis.sections import collect, weights_by_kind
from boost_trl.comparison.offline_rl.findings import difference
from boost_trl.comparison.offline_rl.games_shown import game_html, shown_game
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.pictures import Bar, draw_methods
from boost_trl.comparison.results import Result
from boost_trl.comparison.verdict import ahead_and_behind, as_markdown, clarity, kind_of
from boost_trl.environments.base import Environment
from boost_trl.tables import plus_minus


SCORES, BY_KIND = "scores.png", "weights_by_kind.png"
# Plain training, that on trusted rows too first: what a method gains by seeing these is no gain of weights.
PLAIN = ("vanilla_validation", "vanilla")
NOISE_MEANING = {
    "bot": "a scripted bot's, which repeats itself and claims success after a few turns",
    "stale": "logs of a world whose facts have changed since",
    "weak": "true logs of weaker policies",
}
_OTHER_NOISE = "planted noise of several kinds: garbage, play in another world, faked successes, made-up answers"

Rows = Sequence[Mapping[str, Any]]


def best(rows: Rows, learned: bool) -> Mapping[str, Any] | None:
    """The row of highest score among the methods that learn weights, or among the others without those that know good rows."""
    found = [
        row
        for row in rows
        if METHODS[row["method"]].learns_weights == learned and not METHODS[row["method"]].needs_planted_noise
    ]
    return max(found, key=lambda row: row["score_mean"], default=None)


def verdict(results: Sequence[Result], rows: Rows) -> str:
    """The winner, what it does, by how much it is ahead of the best of the others and whether that is clear."""
    weighted, control = best(rows, learned=True), best(rows, learned=False)
    ahead, behind = ahead_and_behind(weighted, control, lambda row: row["score_mean"])
    if ahead is None:
        return ""
    plain = next((row for name in PLAIN for row in rows if row["method"] == name), ahead)
    beside = "" if plain is ahead else f", plain training (*{plain['label']}*) {plain['success_rate']:.0%}"
    headline = (
        f"**Of {len(rows)} ways of training, *{ahead['label']}* plays best: it solves {ahead['success_rate']:.0%} of the held-out "
        f"games{beside}.**"
    )
    points = [f"**What it does:** {METHODS[ahead['method']].about}."]
    gain = None if behind is None else difference(results, ahead["method"], behind["method"])
    if behind is not None and gain is not None:
        side = "that learns weights" if behind is weighted else "without learned weights"
        points.append(
            f"**How sure?** Its score is {_score(ahead)}. The best way {side}, *{behind['label']}*, has {_score(behind)}: a difference of "
            f"{plus_minus(*gain, '+.2f')}, which {clarity(*gain)}."
        )
    return as_markdown(headline, points)


def _score(row: Mapping[str, Any]) -> str:
    return plus_minus(row["score_mean"], row["score_se"])


def tried(results: Sequence[Result], settings: Mapping[str, Any]) -> str:
    """Sentence that says what was compared."""
    seeds, methods = ({getattr(result, name) for result in results} for name in ("seed", "method"))
    games = len(results[0].metrics.get("game_scores", ()))
    updates = f" with {settings['max_steps']} updates each" if "max_steps" in settings else ""
    worlds = (
        f", in {len(seeds)} worlds"
        if len(seeds) > 1
        else ". One world: the errors are over games and say nothing about others"
    )
    return (
        f"**What was tried:** {len(methods)} ways of training an agent on logged games{updates}, then {games} live games for each, of "
        f"categories that the pool does not have{worlds}."
    )


def scores_picture(rows: Rows, folder: Path) -> str:
    """Draw the scores, the best on top; returns the picture's Markdown."""

    def kind(name: str) -> str:
        method = METHODS[name]
        return kind_of(method.learns_weights, method.needs_planted_noise)

    ordered = sorted(rows, key=lambda row: -row["score_mean"])
    bars = [Bar(row["label"], row["score_mean"], row["score_se"], kind(row["method"])) for row in ordered]
    draw_methods(bars, "score in live games (higher is better)", folder / SCORES)
    return f"![Score of each way of training]({SCORES})"


def bad_rows(run: Run, folder: Path, env: Environment | None) -> list[str]:
    """Rows that the weights of a run found bad: in words, as a picture by kind, and the extreme ones whole.

    Args:
        run ([`Run`]): whose weights.
        folder (`Path`): gets the picture.
        env ([`Environment`], *optional*): says which actions are invalid, and what rows say that is not true.
    """
    extremes = extreme_rows(run, env) if run.is_learned else None
    if extremes is None:
        return []
    drawn, _ = collect([partial(weights_by_kind, run, folder)])
    pictures = [f"![{section.title}]({BY_KIND})" for section in drawn if f"({BY_KIND})" in section.text]
    return ["## Which rows it found bad, and why", _planted(run), *pictures, extremes.text, Markup(extremes.html)]


def _planted(run: Run) -> str:
    """Sentences that say what the bad rows are and how the weights tell them apart; empty where nobody knows."""
    if "noise_kind" not in run.table:
        return ""
    kinds = run.table["noise_kind"].fillna("").to_numpy(dtype=object)
    bad, good = kinds != "", (kinds == "") & ~run.is_synthetic
    if not (bad.any() and good.any()):
        return ""
    found = set(kinds[bad])
    meaning = NOISE_MEANING.get(found.pop(), _OTHER_NOISE) if len(found) == 1 else _OTHER_NOISE
    means = [float(np.mean(run.weights[mask])) for mask in (bad, good)]
    auc = run.result.get("weights_auc")
    told = (
        ""
        if auc is None
        else f" Of a good and a bad row, the good one weighs more in {auc:.0%} of the cases (AUC {auc:.2f}; chance 0.50)."
    )
    return (
        f"The bad rows, {bad.sum() / (bad | good).sum():.0%} of the pool's own {(bad | good).sum():,}, are {meaning}. No way of training "
        f"was told which they are. By the weights of *{run.result['label']}* such a row counts {means[0]:.2f}×, a good one {means[1]:.2f}×.{told}"
        f"{_misleading_returns(run, bad, good)}"
    )


def _misleading_returns(run: Run, bad: np.ndarray, good: np.ndarray) -> str:
    """A sentence where bad rows have the higher returns, as faked successes do."""
    if "return" not in run.table:
        return ""
    of_bad, of_good = (run.table["return"].to_numpy()[mask].mean() for mask in (bad, good))
    if of_bad <= of_good:
        return ""
    said = f" Returns do not tell: those of the bad rows are the higher ones, {of_bad:.1f} on average against {of_good:.1f}."
    return said.replace("-", "−")


def watched_game(run_folder: Path, label: str) -> list[str]:
    """A game that the policy solved, as a chat; empty if no game was saved."""
    game = shown_game(run_folder)
    if game is None:
        return []
    task = game.get("task")
    about = f" It is about {task['id']}; no row of the pool is of this category." if task else ""
    which = "One of the games that it solved, of median score." if game["success"] else "It solved none of its games."
    return [f"## A held-out game of *{label}*", f"{which}{about}", game_html(game)]
