"""The model card that [`BilevelOfflineRLTrainer`] writes beside what it saves."""

import os
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

from boost_trl import __version__
from boost_trl.models.hidden_states import base_causal_lm


if TYPE_CHECKING:
    from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer

POLICY_FOLDER = "policy"
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
    why_no_policy: str | None = None,
    model_name: str | None = None,
    dataset_name: str | None = None,
    tags: list[str] | None = None,
) -> ModelCard:
    """What a reader of the repository needs: which folder is which, how it was trained, how it does, whom to cite.

    Args:
        trainer ([`BilevelOfflineRLTrainer`]): read, not changed.
        why_no_policy (`str`, *optional*): why there is no folder `policy/`; `None` if there is.
        model_name (`str`, *optional*): the heading; the name of `output_dir` by default.
        dataset_name (`str`, *optional*): a dataset on the Hub.
        tags (`list[str]`, *optional*): beside the trainer's own.
    """
    backbone = trainer.model.backbone
    is_adapter = base_causal_lm(backbone) is not backbone
    base = trainer.model.primary.config.base_model_name_or_path
    if base is not None and os.path.isdir(base):
        # Of use on this machine only, and no name that the Hub would take.
        base = None
    data = ModelCardData(
        base_model=base,
        datasets=None if dataset_name is None else [dataset_name],
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=sorted({*(tags or []), *trainer._tag_names}),
    )
    name = model_name or os.path.basename(os.path.abspath(trainer.args.output_dir))
    place = trainer.hub_model_id or name
    sections = [
        f"# {name}",
        _opening(trainer, base),
        "## Use",
        _usage(trainer, place, why_no_policy),
        "## Files",
        _files(trainer, is_adapter, why_no_policy),
        "## Training",
        _table(_settings(trainer)),
    ]
    results = _results(trainer)
    if results:
        sections += ["## Evaluation", _table(results, header=("metric", "value"))]
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


def _usage(trainer, place, why_no_policy) -> str:
    args = trainer.args
    options = f"beta={args.beta:g}, prior={args.policy_prior!r}"
    if args.reference_model_name_or_path is not None:
        options += f", reference_model_name_or_path={args.reference_model_name_or_path!r}"
    lines = ["```python", "from boost_trl import ValuePolicy", "from transformers import AutoTokenizer", ""]
    lines += [f'policy = ValuePolicy.from_pretrained("{place}", {options})']
    if why_no_policy is None:
        lines += ["# or, without boost_trl:"]
        lines += [f'# policy = AutoModelForCausalLM.from_pretrained("{place}", subfolder="{POLICY_FOLDER}")']
    lines += [
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")',
        'messages = [{"role": "user", "content": "..."}]',
        'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", '
        "return_dict=True)",
        f"reply = policy.generate(**inputs, do_sample=True, max_new_tokens={args.max_new_tokens})",
        "```",
    ]
    return "\n".join(lines)


def _files(trainer, is_adapter, why_no_policy) -> str:
    kind = "The PEFT adapter" if is_adapter else "The language model"
    rows = [
        ("this folder", f"{kind} under the value heads, with an untouched output head: **not the policy by itself**"),
        ("`value_heads.*`", "Q (and V) heads; with the language model they are the policy that `ValuePolicy` opens"),
    ]
    if why_no_policy is None:
        rows += [(f"`{POLICY_FOLDER}/`", "The same policy folded into a plain causal language model")]
    else:
        rows += [(f"no `{POLICY_FOLDER}/`", f"The policy does not fold into a plain causal LM: {why_no_policy}")]
    if trainer.reweighting_head is not None:
        rows += [("`reweighting_head.*`", "Scores a trajectory by its embedding; the softmax of scores is the weight")]
    rows += [("`example_weights.parquet`", "The weight of every training row (mean 1)")]
    return _table(rows, header=("where", "what"))


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


def _table(rows: list[tuple[str, str]], header: tuple[str, str] = ("", "")) -> str:
    return "\n".join(f"| {left} | {right} |" for left, right in [header, ("---", "---"), *rows])
