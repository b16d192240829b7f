"""Error that a command prints in one line when a run cannot resume. No import here is heavy."""


class CheckpointError(ValueError):
    """A checkpoint that a run cannot go on from: not whole, or of a run with other settings or rows."""
