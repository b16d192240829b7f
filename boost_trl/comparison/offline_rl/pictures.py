"""Pictures of the weights that an offline RL method ended with, for a comparison's report."""

from functools import partial
from pathlib import Path

from boost_trl.analysis.run_files import open_run
from boost_trl.analysis.sections import collect, synthetic_distance, weights_by_kind


PICTURES = ("weights_by_kind.png", "weight_against_distance.png")


def draw_pictures(folder: Path) -> dict[str, str]:
    """Draw the pictures into the run's folder; returns what each shows, in a sentence, by its name.

    Args:
        folder (`Path`): of the run, with its example weights.
    """
    run = open_run(folder)
    sections, _ = collect([partial(weights_by_kind, run, folder), partial(synthetic_distance, run, folder)])
    return {name: section.finding for section in sections for name in PICTURES if f"({name})" in section.text}
