"""`analysis.html` and `analysis.json` of a run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from boost_trl.analysis.bound_section import bound_section
from boost_trl.analysis.extreme_rows import extreme_rows
from boost_trl.analysis.pictures import times
from boost_trl.analysis.run_files import Run
from boost_trl.analysis.sections import (
    Section,
    collect,
    shift_between,
    synthetic_distance,
    weights_by_kind,
    weights_over_epochs,
)
from boost_trl.environments.base import Environment
from boost_trl.files import write_whole
from boost_trl.html_page import escape_markdown, html_page, markdown_to_html
from boost_trl.losses import effective_sample_size


PAGE_NAME = "analysis.html"
NUMBERS_NAME = "analysis.json"
PICTURES_FOLDER = "analysis"


@dataclass(frozen=True)
class Options:
    """Options of an analysis.

    Args:
        env ([`Environment`], *optional*): says which actions are invalid.
        bound (`dict`, *optional*): options of `bound_section`.
        progress (`bool`, *optional*): show a bar over what takes long.
    """

    env: Environment | None = None
    bound: dict[str, Any] = field(default_factory=dict)
    progress: bool = False


@dataclass(frozen=True)
class Analysis:
    """Outcome of an analysis.

    Args:
        page (`Path`): the HTML page.
        findings (`list[str]`): one sentence per section, Markdown.
        missing (`list[str]`): what could not be analysed, and why.
    """

    page: Path
    findings: list[str]
    missing: list[str]


def analyze(run: Run, others: Sequence[Run] = (), options: Options | None = None) -> Analysis:
    """Write `analysis.html` (one file, pictures inside), `analysis.json` and the pictures, into the run's folder.

    Args:
        run (`Run`): whose.
        others (sequence of `Run`, *optional*): those among them on the same offline rows without synthetic ones are compared
            with it.
        options (`Options`, *optional*): what else there is.
    """
    options = options or Options()
    pictures = run.folder / PICTURES_FOLDER
    pictures.mkdir(exist_ok=True)
    makers: list[Callable[[], Section | None]]
    if run.is_learned:
        makers = [
            partial(weights_by_kind, run, pictures),
            partial(weights_over_epochs, run, pictures),
            partial(synthetic_distance, run, pictures, progress=options.progress),
            *(
                partial(shift_between, other, run, pictures, number)
                for number, other in enumerate([other for other in others if other.is_learned and other is not run], 1)
            ),
            partial(extreme_rows, run, options.env),
            partial(bound_section, run, pictures, **options.bound),
        ]
    else:
        makers = [partial(bound_section, run, pictures, **options.bound)]
    sections, missing = collect(makers)
    findings = [section.finding for section in sections if section.finding]
    if not run.is_learned:
        findings.insert(0, "All rows weigh the same: no weights were learned in this run.")
    write_whole(run.folder / PAGE_NAME, _page(run, sections, findings, missing, pictures))
    numbers = {"run": run.name, **_summary(run), "missing": missing} | {
        section.key: section.numbers for section in sections
    }
    write_whole(run.folder / NUMBERS_NAME, json.dumps(numbers, indent=2, ensure_ascii=False, default=str) + "\n")
    return Analysis(run.folder / PAGE_NAME, findings, missing)


def _summary(run: Run) -> dict[str, Any]:
    import torch

    weights = torch.from_numpy(run.weights)
    turns = None if run.turn_weights is None else [weight for row in run.turn_weights.values() for weight in row]
    return {
        "rows": len(run.table),
        "effective_sample_size": effective_sample_size(weights / weights.sum()).item(),
        "largest_weight": weights.max().item(),
        "turn_weights": None if turns is None else [min(turns), max(turns)],
    }


def _page(
    run: Run, sections: Sequence[Section], findings: Sequence[str], missing: Sequence[str], pictures: Path
) -> str:
    summary = _summary(run)
    head = [
        f"# What the weights say: {escape_markdown(run.name)}",
        f"{summary['rows']:,} training rows, which count as {summary['effective_sample_size']:,.0f} equal ones "
        f"(n_eff); the heaviest counts {summary['largest_weight']:.1f}×.",
        "**In one minute**",
        "\n".join(f"- {finding}" for finding in findings),
    ]
    if summary["turn_weights"] is not None:
        lowest, highest = map(times, summary["turn_weights"])
        head[1] += (
            f" Each turn was weighed: between {lowest} and {highest}. A row's weight is that of its turns together."
        )
    if missing:
        head += ["Left out:", "\n".join(f"- {escape_markdown(reason)}" for reason in missing)]
    parts = [markdown_to_html("\n\n".join(head))]
    for section in sections:
        parts.append(markdown_to_html(f"## {escape_markdown(section.title)}\n\n{section.text}", pictures))
        if section.html is not None:
            parts.append(Markup(section.html))
    return html_page(f"{run.name}: what the weights say", *parts)
