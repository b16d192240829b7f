"""One module that owns the backbone and all value heads, so that a single wrapped forward serves a training step."""

import torch
from torch import nn

from boost_trl.models.hidden_states import final_hidden_states
from boost_trl.models.value_heads import ValueHeads


class PolicyWithValueHeads(nn.Module):
    """A causal LM, the primary policy's value heads (θ) and, for the bilevel methods, the auxiliary policy's (ψ).

    Trainers enter it through the (DDP, FSDP, DeepSpeed) wrapper, whose hooks then see every parameter that is used.

    Args:
        backbone (`PreTrainedModel` or `PeftModel`): a causal LM.
        primary (`ValueHeads`): θ.
        auxiliary (`ValueHeads`, *optional*): ψ, with the shapes of `primary`.
    """

    # Trainer reads this of the model when it resumes.
    _keys_to_ignore_on_save = None

    def __init__(self, backbone: nn.Module, primary: ValueHeads, auxiliary: ValueHeads | None = None):
        super().__init__()
        self.backbone = backbone
        self.primary = primary
        self.auxiliary = auxiliary

    @property
    def config(self):
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        return self.primary.q_bias.device

    def heads(self) -> dict[str, ValueHeads]:
        """The value heads there are, by role."""
        return {role: getattr(self, role) for role in ("primary", "auxiliary") if getattr(self, role) is not None}

    def activation_checkpointing_enable(self, **kwargs) -> None:
        self.backbone.activation_checkpointing_enable(**kwargs)

    def forward(
        self,
        action_index: torch.Tensor,
        actions: torch.Tensor,
        state_index: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        states: torch.Tensor | None = None,
        roles: tuple[str, ...] = ("primary",),
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Q, log-sum-exp of Q, V and target Q of the action tokens, under the heads in `roles`.

        Args:
            action_index (`torch.LongTensor` of shape `(N,)`), actions (`torch.LongTensor` of shape `(N,)`),
            state_index (`torch.LongTensor` of shape `(M,)`): see [`TrajectoryBatch`].
            input_ids, attention_mask (`torch.LongTensor` of shape `(B, S)`, *optional*): when `states` is not given.
            states (`torch.Tensor` of shape `(M, d)`, *optional*): cached hidden states; the backbone is then not run.
            roles (`tuple[str]`): of `"primary"`, `"auxiliary"`.

        Returns:
            `dict`: by role, a dict with `q_taken` and `q_logsumexp` (K, N), and for ILQL `values` (M,) and `target_q`
            (K, N); under the key `"anchor"`, a zero that depends on every trainable parameter of the other heads, so
            that DDP sees all of them in every backward.
        """
        if states is None:
            hidden = final_hidden_states(self.backbone, input_ids, attention_mask)
            states = hidden.reshape(-1, hidden.shape[-1])[state_index]
        before_action = states[action_index]
        output = {}
        for role in roles:
            heads = getattr(self, role)
            q_taken, q_logsumexp = heads.q_statistics(before_action, actions)
            output[role] = {"q_taken": q_taken, "q_logsumexp": q_logsumexp}
            if heads.config.algorithm == "ilql":
                output[role]["values"] = heads.values(states)
                output[role]["target_q"] = heads.target_q(before_action, actions)
        unused = [
            parameter.reshape(-1)[0]
            for role, heads in self.heads().items()
            if role not in roles
            for parameter in heads.parameters()
        ]
        output["anchor"] = {
            "zero": 0.0 * torch.stack(unused).sum() if unused else states.new_zeros((), dtype=torch.float32)
        }
        return output
