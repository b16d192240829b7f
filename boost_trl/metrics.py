"""Metrics of this package; they are `evaluate.Metric` subclasses and load nothing from the Hub."""

import datasets
import evaluate
import numpy as np


class EpisodeScore(evaluate.Metric):
    """Mean score of played episodes with its standard error, success rate and length.

    `compute(scores=…, successes=…, turns=…)`, one entry per episode, returns `score_mean`, `score_se` (sample
    standard deviation / √n; NaN for one episode), `success_rate`, `mean_turns` and `num_games`.
    """

    def _info(self):
        return evaluate.MetricInfo(
            description="Mean ± standard error of episode scores, success rate and mean number of turns.",
            citation="",
            inputs_description="scores: float per episode; successes: bool per episode; turns: int per episode.",
            features=datasets.Features(
                {
                    "scores": datasets.Value("float64"),
                    "successes": datasets.Value("bool"),
                    "turns": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, scores, successes, turns):
        scores = np.asarray(scores, dtype=np.float64)
        count = len(scores)
        return {
            "score_mean": float(scores.mean()),
            "score_se": float(scores.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan"),
            "success_rate": float(np.mean(successes)),
            "mean_turns": float(np.mean(turns)),
            "num_games": count,
        }
