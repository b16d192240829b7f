"""The model card that [`BilevelOfflineRLTrainer`] writes beside what it saves."""

import os
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard

from boost_trl import __version__
from boost_trl.models.hidden_states import base_causal_lm
from boost_trl.models.policy_card import PolicyCard, hub_name, table
from boost_trl.models.turn_end import turn_end


if TYPE_CHECKING:
    from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer

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
_NOT_RESULTS = ("_runtime", "_per_second", "_errors", "_num_games")


def model_card(
    trainer: "BilevelOfflineRLTrainer",
    *,
    why_not_plain: str | None = None,
    model_name: str | None = None,
    dataset_name: str | None = None,
    tags: list[str] | None = None,
) -> ModelCard:
    """What a reader of the repository needs: which folder is which, how it was trained, how it does, whom to cite.

    Args:
        trainer ([`BilevelOfflineRLTrainer`]): read, not changed.
        why_not_plain (`str`, *optional*): why the folder is no plain causal LM; `None` if it is one.
        model_name (`str`, *optional*): the heading; the name of `output_dir` by default.
        dataset_name (`str`, *optional*): a dataset on the Hub.
        tags (`list[str]`, *optional*): beside the trainer's own.
    """
    backbone, heads = trainer.model.backbone, trainer.model.primary.config
    base = hub_name(heads.base_model_name_or_path)
    name = model_name or os.path.basename(os.path.abspath(trainer.args.output_dir))
    card = PolicyCard(
        place=trainer.hub_model_id or name,
        heads=heads,
        is_adapter=base_causal_lm(backbone) is not backbone,
        why_not_plain=why_not_plain,
        stop_text=turn_end(trainer.processing_class).text,
        max_new_tokens=trainer.args.max_new_tokens,
        chat_template_kwargs=trainer.chat_template_kwargs,
    )
    data = card.data(
        base_model=base,
        datasets=None if dataset_name is None else [dataset_name],
        tags=sorted({*(tags or []), *trainer._tag_names}),
    )
    sections = [
        f"# {name}",
        _opening(trainer, base),
        *("## Use", card.usage()),
        *("## Files", table([*card.files(), *_weight_files(trainer)], header=("where", "what"))),
        *("## Training", table(_settings(trainer))),
    ]
    results = _results(trainer)
    if results:
        sections += ["## Evaluation", table(results, header=("metric", "value"))]
    sections += ["## Citation", f"```bibtex\n{CITATION}\n```"]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _opening(trainer, base) -> str:
    what = "multi-turn agent" if base is None else f"multi-turn agent based on [{base}](https://huggingface.co/{base})"
    how = {
        (
            "boost",
            "learned",
        ): "trajectory weights were learned along with the policy from a small validation set (BOOST)",
        ("boost", "uniform"): "BOOST's schedule with equal trajectory weights",
        ("validated", "learned"): "trajectories were weighed before training by what a small validation set teaches",
        ("validated", "uniform"): "trajectories counted equally, mixed with those of a small validation set",
    }.get((trainer.args.method, trainer.args.reweighting), "all trajectories counted equally")
    return (
        f"A {what}, trained by offline reinforcement learning on recorded trajectories with "
        f"boost_trl {__version__}; {how}."
    )


def _weight_files(trainer) -> list[tuple[str, str]]:
    rows = [("`example_weights.parquet`", "The weight of every training row (mean 1)")]
    if trainer.reweighting_head is not None:
        rows += [("`reweighting_head.*`", "Scores a trajectory by its embedding; the softmax of scores is the weight")]
    return rows


def _settings(trainer) -> list[tuple[str, str]]:
    args, config = trainer.args, trainer.model.primary.config
    rows = [
        ("algorithm", args.algorithm),
        ("method", f"{args.method}, {args.reweighting} weights" if args.uses_validation else args.method),
        ("training trajectories", str(len(trainer.train_store))),
        ("policy updates", str(trainer.state.global_step)),
        ("returns", f"{config.return_shift:.4g} + {config.return_scale:.4g} · Q"),
        ("β, prior", f"{args.beta:g}, {args.policy_prior}"),
    ]
    statistics = trainer.weight_statistics()
    if statistics:
        rows += [
            ("effective sample size (1/Σw²)", f"{statistics['effective_sample_size']:.1f}"),
            ("largest weight (mean 1)", f"{statistics['largest_weight']:.3g}"),
        ]
    if trainer.validated_report is not None:
        rows += [("weights chosen", f"{trainer.validated_report['winner']}: {trainer.validated_report['reason']}")]
    return rows


def _results(trainer) -> list[tuple[str, str]]:
    """The last value of every evaluation metric."""
    last: dict[str, float] = {}
    for entry in trainer.state.log_history:
        last |= {key: value for key, value in entry.items() if key.startswith("eval_")}
    return [
        (key.removeprefix("eval_"), f"{value:.4g}") for key, value in last.items() if not key.endswith(_NOT_RESULTS)
    ]
