"""One module that owns the backbone and all value heads, so that a single wrapped forward serves a training step."""

import dataclasses

import torch
from torch import nn

from boost_trl.models.hidden_states import base_causal_lm, final_hidden_states, trainability_kept
from boost_trl.models.value_heads import ValueHeads


# The names that PEFT knows θ's and ψ's adapters by; PEFT saves only "default" without a subfolder.
ADAPTER_NAMES = {"primary": "default", "auxiliary": "auxiliary"}


class PolicyWithValueHeads(nn.Module):
    """A causal LM, the primary policy's value heads (θ) and, for the bilevel methods, the auxiliary policy's (ψ).

    Trainers enter it through the (DDP, FSDP, DeepSpeed) wrapper, whose hooks then see every parameter that is used.

    Args:
        backbone (`PreTrainedModel` or `PeftModel`): a causal LM.
        primary (`ValueHeads`): θ.
        auxiliary (`ValueHeads`, *optional*): ψ, with the shapes of `primary`.
        separate_adapters (`bool`, *optional*, defaults to `False`): give ψ an adapter of its own, a copy of the adapter
            `"default"` of `backbone`, which is then θ's alone. Nothing of the backbone is shared but its frozen weights.
    """

    # Trainer reads this of the model when it resumes.
    _keys_to_ignore_on_save = None

    def __init__(
        self,
        backbone: nn.Module,
        primary: ValueHeads,
        auxiliary: ValueHeads | None = None,
        separate_adapters: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.primary = primary
        self.auxiliary = auxiliary
        self.separate_adapters = separate_adapters
        if separate_adapters:
            self._add_auxiliary_adapter()

    @property
    def config(self):
        return self.backbone.config

    @property
    def _no_split_modules(self) -> list[str] | None:
        """The layers that FSDP2 takes in pieces one by one."""
        return base_causal_lm(self.backbone)._no_split_modules

    @property
    def device(self) -> torch.device:
        return self.primary.q_bias.device

    def heads(self) -> dict[str, ValueHeads]:
        """The value heads there are, by role."""
        return {role: getattr(self, role) for role in ("primary", "auxiliary") if getattr(self, role) is not None}

    def role_of(self, parameter_name: str) -> str:
        """Whose a parameter is, `"primary"` (θ), `"auxiliary"` (ψ) or `"backbone"` (shared), by its name."""
        part, *rest = parameter_name.split(".")
        if part != "backbone" or not self.separate_adapters:
            return part
        return "auxiliary" if ADAPTER_NAMES["auxiliary"] in rest else "primary"

    def auxiliary_adapter(self) -> dict[str, nn.Parameter]:
        """The parameters of ψ's own adapter, by name; empty where it has none."""
        return {
            name: parameter
            for name, parameter in self.backbone.named_parameters(prefix="backbone")
            if self.role_of(name) == "auxiliary"
        }

    @torch.no_grad()
    def synchronize_primary(self) -> None:
        """θ ← ψ: heads, target heads and, where each has its own, adapters."""
        self.primary.copy_from(self.auxiliary)
        for own, other in self._adapter_pairs():
            own.copy_(other)

    def _adapter_pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Parameters of θ's adapter, each with that of ψ's that has its place."""
        own, other = ADAPTER_NAMES["primary"], ADAPTER_NAMES["auxiliary"]
        parameters = dict(self.backbone.named_parameters(prefix="backbone"))
        return [
            (parameters[".".join(own if part == other else part for part in name.split("."))], parameter)
            for name, parameter in self.auxiliary_adapter().items()
        ]

    def _add_auxiliary_adapter(self) -> None:
        # Initialisations such as PiSSA's would change the shared weights a second time.
        config = dataclasses.replace(self.backbone.peft_config[ADAPTER_NAMES["primary"]], init_lora_weights=True)
        with trainability_kept(self.backbone), torch.random.fork_rng(devices=[]):
            self.backbone.add_adapter(ADAPTER_NAMES["auxiliary"], config)
        for own, other in self._adapter_pairs():
            other.data.copy_(own)
            other.requires_grad_(own.requires_grad)

    def use_adapter_of(self, role: str) -> None:
        """Let the backbone be the one of `role`. Nothing to do where both policies share it."""
        if self.separate_adapters and self.backbone.active_adapter != ADAPTER_NAMES[role]:
            with trainability_kept(self.backbone):
                self.backbone.set_adapter(ADAPTER_NAMES[role])

    def activation_checkpointing_enable(self, **kwargs) -> None:
        self.backbone.activation_checkpointing_enable(**kwargs)

    # What transformers before 5.23 calls it.
    def gradient_checkpointing_enable(self, **kwargs) -> None:
        self.backbone.gradient_checkpointing_enable(**kwargs)

    def forward(
        self,
        action_index: torch.Tensor,
        actions: torch.Tensor,
        state_index: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        states: torch.Tensor | None = None,
        roles: tuple[str, ...] = ("primary",),
        anchored: bool = False,
        logsumexp_grad: torch.Tensor | None = None,
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Q, log-sum-exp of Q, V and target Q of the action tokens, under the heads in `roles`.

        Args:
            action_index (`torch.LongTensor` of shape `(N,)`), actions (`torch.LongTensor` of shape `(N,)`),
            state_index (`torch.LongTensor` of shape `(M,)`): see [`TrajectoryBatch`].
            input_ids, attention_mask (`torch.LongTensor` of shape `(B, S)`, *optional*): when `states` is not given.
            states (`torch.Tensor` of shape `(M, d)`, *optional*): cached hidden states; the backbone is then not run.
            roles (`tuple[str]`): of `"primary"`, `"auxiliary"`.
            anchored (`bool`, *optional*, defaults to `False`): add the key `"anchor"`, for DDP, which waits in every
                backward for a gradient of every parameter.
            logsumexp_grad (`torch.Tensor` of shape `(N,)`, *optional*): see [`ValueHeads.q_statistics`].

        Returns:
            `dict`: by role, a dict with `q_taken` and `q_logsumexp` (K, N), and for ILQL `values` (M,) and `target_q`
            (K, N). With `anchored`, `"anchor"` has a `zero` that depends on every trainable parameter of the other policy.
            Of two policies with adapters of their own, the last in `roles` stays the backbone's.
        """
        shared = states
        output = {}
        for role in roles:
            states = shared
            if states is None:
                self.use_adapter_of(role)
                hidden = final_hidden_states(self.backbone, input_ids, attention_mask)
                states = hidden.reshape(-1, hidden.shape[-1])[state_index]
                shared = None if self.separate_adapters else states
            output[role] = getattr(self, role)(states, action_index, actions, logsumexp_grad)
        if anchored:
            unused = [
                parameter.reshape(-1)[0].float()
                for name, parameter in self.named_parameters()
                if parameter.requires_grad and self.role_of(name) not in (*roles, "backbone")
            ]
            output["anchor"] = {
                "zero": 0.0 * torch.stack(unused).sum() if unused else torch.zeros((), device=self.device)
            }
        return output
