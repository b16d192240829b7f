"""What the model card says about the weights."""

from boost_trl.selection import Selector


EXAMPLE_WEIGHTS_NAME = "example_weights.parquet"
_NOT_RESULTS = ("_runtime", "_per_second", "_num_tokens")


def card_section(selector: Selector, num_validation_rows: int, log_history: list[dict[str, float]]) -> str:
    """Markdown: the method, the effective sample size and the last value of every evaluation metric."""
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
    lines = [
        "",
        "## Example weights",
        "",
        f"{text} The weights are in `{EXAMPLE_WEIGHTS_NAME}`.",
        "",
        "| | |",
        "|---|---|",
        f"| rows | {selector.num_examples} |",
        f"| effective sample size | {selector.effective_sample_size():.1f} |",
        f"| largest weight | {selector.largest_weight():.3g} |",
    ]
    evaluation = {}
    for entry in log_history:
        evaluation |= {k: v for k, v in entry.items() if k.startswith("eval_") and not k.endswith(_NOT_RESULTS)}
    if evaluation:
        lines += ["", "## Evaluation", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in evaluation.items()]
    return "\n".join(lines) + "\n"
