"""The part of a model card that is about learned weights, and TRL's card with it."""

from pathlib import Path
from typing import Any

from boost_trl.hub_names import card_place
from boost_trl.selection import Selector, WeightConfidence
from boost_trl.tables import markdown_table
from boost_trl.trainer.common.last_evaluation import last_evaluation
from boost_trl.trainer.common.weight_files import EXAMPLE_WEIGHTS_NAME
from boost_trl.trainer.common.weights_dataset import weight_summary
from boost_trl.trainer.row_weights.trials import EQUAL_WEIGHTS
from boost_trl.version import __version__


_WAYS = {
    "validated": "by what a few updates on these teach the model about it",
    "rank": "by the rank of its loss",
    "bds": "by bilevel data selection",
    "bmo": "by bilevel multi-objective learning",
    "bmo_exact": "by bilevel multi-objective learning",
}
_NO_VERDICT = "How far the weights can be trusted was not measured: that needs trusted rows that nothing trained on, as `eval_dataset`."
_FROM_HUB = f"""\
from huggingface_hub import hf_hub_download

weights = pd.read_parquet(hf_hub_download("{{place}}", "{EXAMPLE_WEIGHTS_NAME}"))"""
_FROM_FOLDER = f"""
weights = pd.read_parquet("{{place}}/{EXAMPLE_WEIGHTS_NAME}")"""
_OPENING = """\
```python
import pandas as pd
{weights}

# With boost_trl, to go on learning them:
from boost_trl.selection import Selector

selector = Selector.from_pretrained("{place}")
```"""
_NOT_RESULTS = ("_runtime", "_per_second", "_num_tokens")
# In TRL's card
_NO_BASE_MODEL = " of [None](https://huggingface.co/None)"
_NO_REPOSITORY = 'model="None"'
_VERSIONS = "### Framework versions\n\n"
_CITATIONS = "## Citations\n"


def how_weighed(selector: Selector, num_validation_rows: int, report: dict[str, Any] | None = None) -> str:
    """A sentence for cards: where the weights come from.

    Args:
        report (`dict`, *optional*): of validated selection, which may have chosen equal weights.
    """
    if report is not None and report["fraction"] == EQUAL_WEIGHTS:
        return (
            f'Equal weights were chosen by {num_validation_rows:,} trusted rows (`selector="{selector.selector}"`), because '
            f"{report['reason']}."
        )
    if selector.is_learned:
        return (
            f"Each training example's weight was learned from {num_validation_rows:,} trusted rows, "
            f'{_WAYS[selector.selector]} (`selector="{selector.selector}"`).'
        )
    return (
        f'All training examples weigh the same (`selector="{selector.selector}"`), mixed with those of a validation set of '
        f"{num_validation_rows:,} rows."
    )


def completed_card(
    text: str,
    selector: Selector,
    num_validation_rows: int,
    log_history: list[dict[str, Any]],
    confidence: WeightConfidence | None,
    hub_model_id: str | None,
    folder: Path,
    report: dict[str, Any] | None = None,
) -> str:
    """TRL's card with two sections more, before the citations: the weights and the last evaluation.

    Args:
        text (`str`): TRL's card.
        log_history (`list[dict]`): Trainer's.
        confidence ([`~boost_trl.selection.WeightConfidence`], *optional*): how far the weights can be trusted.
        hub_model_id (`str`, *optional*): the repository, once there is one.
        folder (`Path`): of the model.
        report (`dict`, *optional*): of validated selection.
    """
    how = how_weighed(selector, num_validation_rows, report)
    place = card_place(hub_model_id, folder)
    opening = _FROM_FOLDER if hub_model_id is None else _FROM_HUB
    opening = _OPENING.format(weights=opening.format(place=place), place=place)
    sections = _weights_section(selector, how, confidence, opening) + _evaluation_section(log_history)
    text = (
        text.replace(_NO_BASE_MODEL, "")
        .replace(_NO_REPOSITORY, f'model="{place}"')
        .replace(_VERSIONS, f"{_VERSIONS}- boost_trl: {__version__}\n")
    )
    before, heading, after = text.partition(_CITATIONS)
    return "\n\n".join([before.rstrip(), *sections, f"{heading}{after}".rstrip()]) + "\n"


def _weights_section(selector: Selector, how: str, confidence: WeightConfidence | None, opening: str) -> list[str]:
    rows = [("", ""), *weight_summary(selector.weights().numpy())]
    if confidence is not None:
        rows.append(("rows with a loss as low as trusted rows have", f"{confidence.trusted_share:.0%}"))
    section = [
        "## Example weights",
        f"{how} Weights are for training: the model opens without them and without boost_trl.",
        markdown_table(rows, "ll"),
    ]
    if selector.is_learned:
        section.append(_NO_VERDICT if confidence is None else confidence.verdict())
    return [*section, f"The weight of every row is in `{EXAMPLE_WEIGHTS_NAME}`:", opening]


def _evaluation_section(log_history: list[dict[str, Any]]) -> list[str]:
    """The last value of every evaluation metric."""
    found, step = last_evaluation(log_history, _NOT_RESULTS)
    if not found:
        return []
    rows = [("metric", "value"), *((name, f"{value:.4g}") for name, value in found.items())]
    return ["## Evaluation", f"On the evaluation set, after {step:,} updates:", markdown_table(rows, "ll")]
