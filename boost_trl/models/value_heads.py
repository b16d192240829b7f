"""Linear value heads on the final hidden state of a language model."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from boost_trl.hub_names import hub_name
from boost_trl.losses import q_statistics, q_values_of
from boost_trl.version import __version__

from .pretrained_head import PretrainedHead
from .sharded_tensor import whole_tensor


@dataclass
class ValueHeadsConfig:
    """Configuration of [`ValueHeads`]: their shape, and what is needed to read their values.

    Args:
        algorithm (`str`): `"mc"` (Q heads only) or `"ilql"` (Q heads and one V head).
        hidden_size (`int`): d, the width of the final hidden state.
        vocab_size (`int`): V, the number of rows of the language model's output matrix (padding rows included).
        num_q_heads (`int`, *optional*): K; by default 1 for `"mc"` and 2 for `"ilql"`.
        bias (`str`, *optional*, defaults to `"scalar"`): `"scalar"`: one number per Q head; `"token"`: one per token
            of the vocabulary.
        rank (`int`, *optional*): Replaces each V × d matrix by the product of V × rank and rank × d.
        with_targets (`bool`, *optional*, defaults to `False`): Keep slowly moving copies of the Q heads.
        return_shift (`float`, *optional*, defaults to `0.0`): Shift of the returns that the heads were trained on:
            return = `return_shift + return_scale * Q`.
        return_scale (`float`, *optional*, defaults to `1.0`): Scale of the returns.
        train_backbone (`bool`, *optional*, defaults to `True`): Whether the backbone moved in training. `False` states
            that the language model which the heads sit on is the unmodified one, so that it can serve as the prior of
            [`ValuePolicy`] in the same forward pass.
        beta (`float`, *optional*, defaults to `1.0`), prior (`str`, *optional*, defaults to `"none"`),
        heads (`str`, *optional*, defaults to `"min"`), reference_model_name_or_path (`str`, *optional*): What
            [`ValuePolicy.from_pretrained`] uses unless told otherwise.
        base_model_name_or_path (`str`, *optional*): The language model that training started from.
        boost_trl_version (`str`, *optional*): Version that wrote the heads.

    Raises:
        ValueError: if `algorithm` or `bias` is none of its choices, or a size is not positive.
    """

    algorithm: str
    hidden_size: int
    vocab_size: int
    num_q_heads: int = cast(int, None)  # a number from `__post_init__` on
    bias: str = "scalar"
    rank: int | None = None
    with_targets: bool = False
    return_shift: float = 0.0
    return_scale: float = 1.0
    train_backbone: bool = True
    beta: float = 1.0
    prior: str = "none"
    heads: str = "min"
    reference_model_name_or_path: str | None = None
    base_model_name_or_path: str | None = None
    boost_trl_version: str = __version__

    def __post_init__(self):
        if self.algorithm not in ("mc", "ilql"):
            raise ValueError(f"`algorithm` must be 'mc' or 'ilql', got {self.algorithm!r}")
        if self.bias not in ("scalar", "token"):
            raise ValueError(f"`bias` must be 'scalar' or 'token', got {self.bias!r}")
        if self.num_q_heads is None:
            self.num_q_heads = 1 if self.algorithm == "mc" else 2
        for name in ("hidden_size", "vocab_size", "num_q_heads", "rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be positive, got {value}")


class ValueHeads(PretrainedHead):
    r"""K linear Q heads \\( Q_j(s, \cdot) = W_j h + b_j \\), for ILQL a V head \\( V(s) = w \cdot h + v \\), and on
    request target copies of the Q heads. Parameters are float32 and start at zero: call
    [`~ValueHeads.initialize_from_lm_head`] or [`~ValueHeads.initialize_random`]. Hidden states may have any floating
    dtype; values are computed in float32, under autocast too.

    Args:
        config ([`ValueHeadsConfig`]): Shapes and scales.

    Example:

    ```python
    >>> heads = ValueHeads(ValueHeadsConfig("mc", hidden_size=576, vocab_size=49152))
    >>> heads.initialize_from_lm_head(model.get_output_embeddings().weight)
    >>> q_taken, q_logsumexp = heads.q_statistics(hidden, actions)  # (1, T) each
    ```
    """

    config_class = ValueHeadsConfig
    weights_name = "value_heads.safetensors"
    config_name = "value_heads_config.json"

    def __init__(self, config: ValueHeadsConfig):
        super().__init__()
        self.config = config
        heads, words, width, rank = config.num_q_heads, config.vocab_size, config.hidden_size, config.rank
        shapes: dict[str, tuple[int, ...]] = {"q_weight": (heads, words, width)}
        if rank is not None:
            # Q_j = out_j (in_j h)
            shapes = {"q_factor_out": (heads, words, rank), "q_factor_in": (heads, rank, width)}
        shapes["q_bias"] = (heads, 1 if config.bias == "scalar" else words)
        self._q_names = tuple(shapes)
        if config.algorithm == "ilql":
            shapes |= {"v_weight": (width,), "v_bias": (1,)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        if config.with_targets:
            for name in self._q_names:
                self.register_buffer(f"target_{name}", torch.zeros(shapes[name]))

    @property
    def card_text(self) -> str:
        heads = {"mc": "Q head", "ilql": "Q and V heads"}[self.config.algorithm]
        base = hub_name(self.config.base_model_name_or_path)
        model = "a language model" if base is None else f"[{base}](https://huggingface.co/{base})"
        return f"{heads} (`{self.config.algorithm}`) on the final hidden state of {model}"

    # A compiler would be made to unroll blocks of the vocabulary whose sizes change with every batch.
    @torch.compiler.disable
    def forward(
        self,
        states: torch.Tensor,
        action_index: torch.Tensor,
        actions: torch.Tensor,
        logsumexp_grad: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """All that the losses need of the heads. Training enters here: engines such as ZeRO-3 have a module's parameters
        whole within its forward only.

        Args:
            states (`torch.Tensor` of shape `(M, d)`): States.
            action_index (`torch.LongTensor` of shape `(N,)`): Which of them precede an action token.
            actions (`torch.LongTensor` of shape `(N,)`): The actions taken.
            logsumexp_grad (`torch.Tensor` of shape `(N,)`, *optional*): see [`losses.q_statistics`].

        Returns:
            `dict`: `q_taken` and `q_logsumexp` of shape `(K, N)`; for ILQL `values` `(M,)` and `target_q` `(K, N)`.
        """
        before_action = states[action_index]
        q_taken, q_logsumexp = self.q_statistics(before_action, actions, logsumexp_grad)
        output = {"q_taken": q_taken, "q_logsumexp": q_logsumexp}
        if self.config.algorithm == "ilql":
            output["values"] = self.values(states)
            output["target_q"] = self.target_q(before_action, actions)
        return output

    def q_statistics(
        self, hidden: torch.Tensor, actions: torch.Tensor, logsumexp_grad: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Q(s, a) and logsumexp Q(s, ·) of every Q head, differentiable: see [`losses.q_statistics`].

        Args:
            hidden (`torch.Tensor` of shape `(T, d)`): States of the action tokens.
            actions (`torch.Tensor` of shape `(T,)`): Actions taken.
            logsumexp_grad (`torch.Tensor` of shape `(T,)`, *optional*): The gradient of the objective with respect to
                every head's log-sum-exp, up to a factor, where it is known beforehand: makes it faster.

        Returns:
            `tuple` of two `torch.Tensor` of shape `(K, T)`, float32.
        """
        if self.config.rank is None:
            return q_statistics(hidden, self.q_weight, self.q_bias, actions, logsumexp_grad=logsumexp_grad)
        per_head = [
            q_statistics(_project(hidden, factor_in), factor_out, bias, actions, logsumexp_grad=logsumexp_grad)
            for factor_in, factor_out, bias in zip(self.q_factor_in, self.q_factor_out, self.q_bias)
        ]
        q_taken, q_logsumexp = zip(*per_head)
        return torch.stack(q_taken), torch.stack(q_logsumexp)

    def values(self, hidden: torch.Tensor) -> torch.Tensor:
        """V(s) of an ILQL head.

        Args:
            hidden (`torch.Tensor` of shape `(..., d)`): States.

        Returns:
            `torch.Tensor` of shape `(...)`, float32, differentiable.

        Raises:
            ValueError: if the heads are Monte-Carlo heads, which have no V.
        """
        if self.config.algorithm != "ilql":
            raise ValueError("heads of algorithm 'mc' have no V head")
        return _project(hidden, self.v_weight) + self.v_bias

    @torch.no_grad()
    def target_q(self, hidden: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Q(s, a) of the target heads, or of the heads themselves where there are none; without gradient.

        Args:
            hidden (`torch.Tensor` of shape `(T, d)`): States of the action tokens.
            actions (`torch.Tensor` of shape `(T,)`): Actions taken.

        Returns:
            `torch.Tensor` of shape `(K, T)`, float32.
        """
        prefix = "target_" if self.config.with_targets else ""
        bias = getattr(self, prefix + "q_bias")
        if self.config.rank is None:
            return q_values_of(hidden, getattr(self, prefix + "q_weight"), bias, actions)
        factors = zip(getattr(self, prefix + "q_factor_in"), getattr(self, prefix + "q_factor_out"), bias)
        return torch.stack([q_values_of(_project(hidden, a), b, bias_j, actions) for a, b, bias_j in factors])

    def q_logits(self, hidden: torch.Tensor, reduction: str = "min") -> torch.Tensor:
        """Q(s, ·) over the vocabulary, for decoding: needs V numbers per state.

        Args:
            hidden (`torch.Tensor` of shape `(..., d)`): States.
            reduction (`str`, *optional*, defaults to `"min"`): Over the Q heads: `"min"`, `"mean"` or `"first"`.

        Returns:
            `torch.Tensor` of shape `(..., V)`, float32.
        """
        if reduction != "min":
            weight, bias = self.folded(reduction)
            return _project(hidden, weight) + bias
        lowest = None
        for head in range(self.config.num_q_heads):
            states = hidden if self.config.rank is None else _project(hidden, self.q_factor_in[head])
            weight = (self.q_weight if self.config.rank is None else self.q_factor_out)[head]
            logits = _project(states, weight) + self.q_bias[head]
            lowest = logits if lowest is None else torch.minimum(lowest, logits)
        return lowest

    @torch.no_grad()
    def folded(self, reduction: str) -> tuple[torch.Tensor, torch.Tensor]:
        """One linear map equal to the mean of the Q heads or to the first one.

        Args:
            reduction (`str`): `"mean"` or `"first"`.

        Returns:
            `tuple` of `torch.Tensor`: weight `(V, d)` and bias `(1,)` or `(V,)`, without gradient.

        Raises:
            ValueError: if `reduction` is neither.
        """
        if reduction not in ("mean", "first"):
            raise ValueError(f"`reduction` must be 'mean' or 'first', got {reduction!r}")
        heads = slice(None) if reduction == "mean" else slice(1)
        if self.config.rank is None:
            weight = self.q_weight[heads].mean(dim=0)
        else:
            weight = torch.bmm(self.q_factor_out[heads], self.q_factor_in[heads]).mean(dim=0)
        return weight, self.q_bias[heads].mean(dim=0)

    @torch.no_grad()
    def update_targets(self, rate: float) -> None:
        r"""Polyak step of the target copies: \\( \hat\theta \leftarrow \hat\theta + \text{rate} (\theta - \hat\theta) \\).

        Args:
            rate (`float`): 1 copies the heads; nothing happens without targets.
        """
        if self.config.with_targets:
            for name in self._q_names:
                # DeepSpeed casts parameters but no buffers, which is well: in bfloat16 small steps round to none.
                target = getattr(self, f"target_{name}")
                target.lerp_(whole_tensor(getattr(self, name)).to(target.dtype), rate)

    @torch.no_grad()
    def copy_from(self, other: "ValueHeads") -> None:
        """Take over another module's heads and target heads, in place.

        Args:
            other ([`ValueHeads`]): Heads of the same configuration.
        """
        self.load_state_dict(other.state_dict())

    @torch.no_grad()
    def initialize_from_lm_head(
        self,
        weight: torch.Tensor,
        logit_scale: float = 1.0,
        generator: torch.Generator | None = None,
        bias: torch.Tensor | None = None,
    ) -> None:
        """Start where softmax(Q) is the distribution softmax(logit_scale · (weight h + bias)).

        W is the output matrix minus the mean of its rows (a constant over tokens, which softmax does not see). Several
        heads get different noise of 1 % of the entries' size: identical heads would stay identical. The V head and scalar
        biases are zero, targets equal the heads. With a rank, W is the best approximation of that rank.

        Args:
            weight (`torch.Tensor` of shape `(V, d)`): The language model's output matrix.
            logit_scale (`float`, *optional*, defaults to `1.0`): Factor between `weight @ hidden` and the model's
                logits, for architectures that have one.
            generator (`torch.Generator`, *optional*): Of the noise, on the CPU.
            bias (`torch.Tensor` of shape `(V,)`, *optional*): The bias of the output head; only heads with a bias per
                token have a place for it.

        Raises:
            ValueError: if `weight` is not of shape `(V, d)`.
        """
        expected = (self.config.vocab_size, self.config.hidden_size)
        if tuple(weight.shape) != expected:
            raise ValueError(f"the output matrix must have shape (V, d) = {expected}, got {tuple(weight.shape)}")
        self._zero()
        centred = weight.detach().to(self.q_bias.device, torch.float32) * logit_scale
        centred = centred - centred.mean(dim=0)
        if self.config.rank is None:
            main = self.q_weight
            main.copy_(centred.expand_as(main))
        else:
            # The leading eigenvectors of W'W give the truncated SVD without factoring a (V, d) matrix.
            _, vectors = torch.linalg.eigh(centred.T.double() @ centred.double())
            basis = vectors[:, -self.config.rank :].flip(1).to(centred.dtype)
            missing = self.config.rank - basis.shape[1]
            basis = nn.functional.pad(basis, (0, missing))
            main = self.q_factor_out
            self.q_factor_in.copy_(basis.T.expand_as(self.q_factor_in))
            main.copy_((centred @ basis).expand_as(main))
        if bias is not None and self.config.bias == "token":
            bias = bias.detach().to(self.q_bias.device, torch.float32) * logit_scale
            self.q_bias.copy_((bias - bias.mean()).expand_as(self.q_bias))
        if self.config.num_q_heads > 1:
            main.add_(_noise(main, 0.01 * main.std().item(), generator))
        self.update_targets(1.0)

    @torch.no_grad()
    def initialize_random(self, std: float = 0.02, generator: torch.Generator | None = None) -> None:
        """Start from small random Q heads, zero biases and a zero V head; targets equal the heads.

        Args:
            std (`float`, *optional*, defaults to `0.02`): Standard deviation of the entries of W (of the product, with
                a rank).
            generator (`torch.Generator`, *optional*): On the CPU.
        """
        self._zero()
        if self.config.rank is None:
            self.q_weight.copy_(_noise(self.q_weight, std, generator))
        else:
            self.q_factor_out.copy_(_noise(self.q_factor_out, std, generator))
            self.q_factor_in.copy_(_noise(self.q_factor_in, self.config.rank**-0.5, generator))
        self.update_targets(1.0)

    @torch.no_grad()
    def shift_bias(self, delta: float | torch.Tensor, value_delta: float = 0.0) -> None:
        """Add a constant to all Q values (and their targets), and one to V.

        Args:
            delta (`float` or `torch.Tensor` of shape `(K,)`): Added to every head, or one number per head.
            value_delta (`float`, *optional*, defaults to `0.0`): Added to V(s) of ILQL heads.
        """
        delta = torch.as_tensor(delta, dtype=torch.float32, device=self.q_bias.device).reshape(-1, 1)
        self.q_bias.add_(delta)
        if self.config.with_targets:
            self.target_q_bias.add_(delta)
        if self.config.algorithm == "ilql":
            self.v_bias.add_(value_delta)

    def _zero(self):
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.zero_()


def _project(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`hidden @ weight.T` in at least float32, whatever autocast would prefer and whatever an engine cast the heads to."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        # Not `linear`: ZeRO-3 replaces it by one that knows no vector of weights.
        return hidden.to(dtype) @ weight.to(dtype).t()


def _noise(like: torch.Tensor, std: float, generator: torch.Generator | None) -> torch.Tensor:
    return (torch.randn(like.shape, generator=generator) * std).to(like.device)
