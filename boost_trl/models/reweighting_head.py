"""The reweighting head w_φ: from the embedding of a trajectory, or of a turn, to the score of its weight."""

from dataclasses import dataclass

import torch
from torch import nn

from boost_trl.version import __version__

from .pretrained_head import PretrainedHead


@dataclass
class ReweightingHeadConfig:
    """Shape of a [`ReweightingHead`].

    Args:
        input_size (`int`): d, the width of a trajectory embedding.
        hidden_size (`int`, *optional*, defaults to `128`): Width of the hidden layers.
        depth (`int`, *optional*, defaults to `2`): Number of linear layers.
        boost_trl_version (`str`, *optional*): Version that wrote the head.

    Raises:
        ValueError: if a size is not positive.
    """

    input_size: int
    hidden_size: int = 128
    depth: int = 2
    boost_trl_version: str = __version__

    def __post_init__(self):
        for name in ("input_size", "hidden_size", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")


class ReweightingHead(PretrainedHead):
    """A ReLU network from embeddings of trajectories, or of turns, to scores; the softmax of a batch's scores are its weights
    ([`losses.trajectory_weights`], [`losses.turn_weights`]). Its last layer starts at zero, so training starts from
    exactly uniform weights, and has no bias: a constant on all scores changes no weight. Embeddings are standardised with buffers that are saved.

    Args:
        input_size (`int`): d, the width of a trajectory embedding.
        hidden_size (`int`, *optional*, defaults to `128`): Width of the hidden layers.
        depth (`int`, *optional*, defaults to `2`): Number of linear layers (the paper: 2, for WebShop 4).

    Example:

    ```python
    >>> head = ReweightingHead(embeddings.shape[1])
    >>> head.fit_standardization(embeddings)
    >>> weights = trajectory_weights(head(embeddings[batch]))
    ```
    """

    config_class = ReweightingHeadConfig
    weights_name = "reweighting_head.safetensors"
    config_name = "reweighting_head_config.json"
    card_text = (
        "A network that scores the embeddings of trajectories, or of turns; the softmax of the scores is their weights"
    )

    def __init__(self, input_size: int, hidden_size: int = 128, depth: int = 2):
        super().__init__()
        self.config = ReweightingHeadConfig(input_size, hidden_size, depth)
        sizes = [input_size] + [hidden_size] * (depth - 1)
        layers = [layer for pair in zip(sizes, sizes[1:]) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1, bias=False))
        nn.init.zeros_(self.layers[-1].weight)
        self.register_buffer("embedding_mean", torch.zeros(input_size))
        self.register_buffer("embedding_std", torch.ones(input_size))

    @classmethod
    def from_config(cls, config: ReweightingHeadConfig) -> "ReweightingHead":
        return cls(config.input_size, config.hidden_size, config.depth)

    def fit_standardization(self, embeddings: torch.Tensor) -> None:
        """Standardise every dimension by its mean and standard deviation over the training set.

        Without a call, embeddings are used as they are. A constant dimension is only shifted.

        Args:
            embeddings (`torch.Tensor` of shape `(N, d)`): Embeddings of all training trajectories.

        Raises:
            ValueError: if there are none, they have another width, or one is not finite.
        """
        if embeddings.dim() != 2 or not len(embeddings) or embeddings.shape[1] != self.config.input_size:
            raise ValueError(
                f"`embeddings` must have shape (N, {self.config.input_size}), N > 0, got {tuple(embeddings.shape)}"
            )
        exact = embeddings.detach().double()
        finite = exact.isfinite().all(dim=1)
        if not finite.all():
            raise ValueError(f"the embedding of row {int((~finite).nonzero()[0])} is not finite")
        std = exact.std(dim=0, correction=0)
        # What rounding leaves of a constant dimension must not be blown up to unit size.
        constant = std <= 1e-6 * exact.abs().amax(dim=0)
        self.embedding_mean.copy_(exact.mean(dim=0))
        self.embedding_std.copy_(torch.where(constant, 1.0, std))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores, in float32 under autocast too.

        Args:
            embeddings (`torch.Tensor` of shape `(B, d)`): Trajectory embeddings, any floating dtype.

        Returns:
            `torch.Tensor` of shape `(B,)`, differentiable.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            standardized = (embeddings.to(self.embedding_mean.dtype) - self.embedding_mean) / self.embedding_std
            return self.layers(standardized).squeeze(-1)
