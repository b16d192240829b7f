"""What the model card says about the weights."""

from boost_trl.selection import Selector, WeightConfidence
from boost_trl.tables import markdown_table


EXAMPLE_WEIGHTS_NAME = "example_weights.parquet"
_NOT_RESULTS = ("_runtime", "_per_second", "_num_tokens")


def card_section(
    selector: Selector,
    num_validation_rows: int,
    log_history: list[dict[str, float]],
    confidence: WeightConfidence | None = None,
) -> str:
    """Markdown: the method, the effective sample size, how far the weights can be trusted and the last value of every
    evaluation metric."""
    how = f'`selector="{selector.selector}"`'
    if selector.is_learned:
        text = (
            f"Each training example's weight was learned ({how}) from a validation set of {num_validation_rows} rows."
        )
    else:
        text = (
            f"All training examples weigh the same ({how}), mixed with those of a validation set of "
            f"{num_validation_rows} rows."
        )
    rows = [
        ("", ""),
        ("rows", str(selector.num_examples)),
        ("effective sample size", f"{selector.effective_sample_size():.1f}"),
        ("largest weight", f"{selector.largest_weight():.3g}"),
    ]
    if confidence is not None:
        rows.append(("share of the pool that ranks with the trusted rows", f"{confidence.trusted_share:.2f}"))
    lines = [
        "",
        "## Example weights",
        "",
        f"{text} The weights are in `{EXAMPLE_WEIGHTS_NAME}`.",
        "",
        markdown_table(rows, "ll"),
    ]
    if selector.is_learned:
        verdict = (
            "It was not measured whether trusted rows agree with them." if confidence is None else confidence.verdict()
        )
        lines += ["", verdict]
    evaluation = {}
    for entry in log_history:
        evaluation |= {k: v for k, v in entry.items() if k.startswith("eval_") and not k.endswith(_NOT_RESULTS)}
    if evaluation:
        rows = [("metric", "value"), *((name, f"{value:.4g}") for name, value in evaluation.items())]
        lines += ["", "## Evaluation", "", markdown_table(rows, "ll")]
    return "\n".join(lines) + "\n"
