"""The model card that [`BilevelOfflineRLTrainer`] writes beside what it saves."""

import os
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCard
from torch import nn
from transformers import PreTrainedTokenizerBase

from boost_trl.hub_names import card_place, hub_name
from boost_trl.models.hidden_states import base_causal_lm
from boost_trl.models.policy_card import ALGORITHMS, PolicyCard, policy_settings, table, versions
from boost_trl.models.turn_end import turn_end
from boost_trl.models.value_heads import ValueHeadsConfig
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.common.last_evaluation import last_evaluation


# Not during training: a copy of the model for each checkpoint.
IN_A_CHECKPOINT = "this is a checkpoint; the plain causal language model is written when training has ended"
CITATION = """\
@misc{verma2026boost,
  title         = {Bilevel Optimization of Synthetic Trajectories for Multi-Turn {LLM} Fine-Tuning},
  author        = {Shresth Verma and Mauricio Tec and Cheol Woo Kim and Kai Wang and Milind Tambe},
  year          = {2026},
  eprint        = {2605.24743},
  archivePrefix = {arXiv}
}"""
TRL_CITATION = """\
@software{vonwerra2020trl,
  title   = {{TRL: Transformers Reinforcement Learning}},
  author  = {von Werra, Leandro and Belkada, Younes and Tunstall, Lewis and Beeching, Edward and Thrush, Tristan and Lambert, Nathan and Huang, Shengyi and Rasul, Kashif and Gallouédec, Quentin},
  license = {Apache-2.0},
  url     = {https://github.com/huggingface/trl},
  year    = {2020}
}"""
_NOT_RESULTS = ("_runtime", "_per_second", "_errors", "_num_games")


@dataclass
class TrainedPolicy:
    """Facts of a run for its model card.

    Args:
        args (`BilevelOfflineRLConfig`): of the training.
        backbone (`nn.Module`), heads (`ValueHeadsConfig`), tokenizer: what is saved.
        chat_template_kwargs (`dict`): how games are rendered.
        hub_model_id (`str`, *optional*): the repository, once there is one.
        why_not_plain (`str`, *optional*): why the folder is no plain causal LM; `None` if it is one.
        tags (`list[str]`): of the Hub.
        num_rows, num_validation_rows, num_updates (`int`): training and validation rows that were used, policy updates so far.
        weight_statistics (`dict`): empty where no weights were learned.
        has_reweighting_head (`bool`): whether one is saved.
        validated_report (`dict`, *optional*): of validated reweighting.
        log_history (`list[dict]`): Trainer's.
    """

    args: BilevelOfflineRLConfig
    backbone: nn.Module
    heads: ValueHeadsConfig
    tokenizer: PreTrainedTokenizerBase
    chat_template_kwargs: dict[str, Any]
    hub_model_id: str | None
    why_not_plain: str | None
    tags: list[str]
    num_rows: int
    num_validation_rows: int
    num_updates: int
    weight_statistics: dict[str, float]
    has_reweighting_head: bool
    validated_report: dict[str, Any] | None
    log_history: list[dict[str, Any]]


def model_card(
    trained: TrainedPolicy,
    *,
    model_name: str | None = None,
    dataset_name: str | None = None,
    tags: list[str] | None = None,
) -> ModelCard:
    """Model card: which folder is which, training, results, citations.

    Args:
        trained (`TrainedPolicy`): what there is to say.
        model_name (`str`, *optional*): the heading; the name of `output_dir` by default.
        dataset_name (`str`, *optional*): a dataset on the Hub.
        tags (`list[str]`, *optional*): beside the trainer's own.
    """
    base = hub_name(trained.heads.base_model_name_or_path)
    name = model_name or os.path.basename(os.path.abspath(trained.args.output_dir))
    card = PolicyCard(
        place=card_place(trained.hub_model_id, trained.args.output_dir),
        heads=trained.heads,
        is_adapter=base_causal_lm(trained.backbone) is not trained.backbone,
        why_not_plain=trained.why_not_plain,
        stop_text=turn_end(trained.tokenizer).text,
        max_new_tokens=trained.args.max_new_tokens,
        chat_template_kwargs=trained.chat_template_kwargs,
    )
    data = card.data(
        base_model=base,
        datasets=None if dataset_name is None else [dataset_name],
        tags=sorted({*(tags or []), *trained.tags}),
    )
    sections = [
        f"# {name}",
        _opening(trained.args, base, dataset_name),
        *("## Use", card.usage()),
        *("## Files", table([*card.files(), *_weight_files(trained)], header=("where", "what")), *card.note()),
        *("## Training", table(_settings(trained))),
    ]
    sections += _evaluation(trained.log_history)
    sections += ["## Versions", table(versions(), header=("library", "version"))]
    sections += ["## Citations", f"```bibtex\n{CITATION}\n```", f"```bibtex\n{TRL_CITATION}\n```"]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _opening(args: BilevelOfflineRLConfig, base: str | None, dataset_name: str | None) -> str:
    what = "multi-turn agent" if base is None else f"multi-turn agent based on [{base}](https://huggingface.co/{base})"
    data = "recorded trajectories"
    if dataset_name is not None:
        data = f"the recorded trajectories of [{dataset_name}](https://huggingface.co/datasets/{dataset_name})"
    return f"A {what}, trained by offline reinforcement learning on {data} with boost_trl; {how_weighed(args)}."


def how_weighed(args: BilevelOfflineRLConfig) -> str:
    """A sentence for cards, without its stop: where the weights come from."""
    weighed = {"trajectory": "trajectories", "turn": "the assistant turns of all trajectories"}[args.weight_level]
    return {
        (
            "boost",
            "learned",
        ): f"weights of {weighed} were learned along with the policy from a small validation set (BOOST)",
        ("boost", "uniform"): "BOOST's schedule with equal trajectory weights",
        ("validated", "learned"): f"{weighed} were weighed before training by what a small validation set teaches",
        ("validated", "uniform"): "trajectories counted equally, mixed with those of a small validation set",
    }.get((args.method, args.reweighting), "all trajectories counted equally")


def _weight_files(trained: TrainedPolicy) -> list[tuple[str, str]]:
    of_turns = trained.args.weight_level == "turn"
    what = "every training row and of each of its turns" if of_turns else "every training row"
    rows = [("`example_weights.parquet`", f"The weight of {what} (mean 1)")]
    if trained.has_reweighting_head:
        what = "turn by the embedding of its last token" if of_turns else "trajectory by its embedding"
        rows += [
            (
                "`reweighting_head.*`",
                f"Scores a {what}; the softmax of scores is the weight; `ReweightingHead` opens it",
            )
        ]
    return rows


def _settings(trained: TrainedPolicy) -> list[tuple[str, str]]:
    args, config = trained.args, trained.heads
    rows = [
        ("algorithm", ALGORITHMS[config.algorithm]),
        ("method", _method(args)),
        ("training trajectories", str(trained.num_rows)),
        ("validation trajectories", str(trained.num_validation_rows)),
        ("policy updates", str(trained.num_updates)),
        *policy_settings(config, args.beta, args.policy_prior),
    ]
    statistics = trained.weight_statistics
    if statistics:
        rows += [
            ("effective sample size (1/Σw²)", f"{statistics['effective_sample_size']:.1f}"),
            ("largest weight (mean 1)", f"{statistics['largest_weight']:.3g}"),
        ]
        rows += [
            (f"mean weight of `{name.removeprefix('weight_')}` trajectories", f"{value:.3g}")
            for name, value in statistics.items()
            if name.startswith("weight_") and name != "weight_entropy"
        ]
    if trained.validated_report is not None:
        rows += [("weights chosen", f"{trained.validated_report['winner']}: {trained.validated_report['reason']}")]
    return rows


def _method(args: BilevelOfflineRLConfig) -> str:
    if not args.uses_validation:
        return args.method
    per_turn = " per turn" if args.weight_level == "turn" else ""
    return f"{args.method}, {args.reweighting} weights{per_turn}"


def _evaluation(log_history: list[dict[str, Any]]) -> list[str]:
    """The last value of every evaluation metric."""
    last, step = last_evaluation(log_history, _NOT_RESULTS)
    if not last:
        return []
    rows = [(key.removeprefix("eval_"), f"{value:.4g}") for key, value in last.items()]
    opening = f"After {step:,} updates; `loss` is that of held-out trajectories, all else comes from live games."
    return ["## Evaluation", opening, table(rows, header=("metric", "value"))]
