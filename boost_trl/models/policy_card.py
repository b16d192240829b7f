"""The part of a value policy's model card that says how to open it."""

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from boost_trl.hub_names import hub_name
from boost_trl.tables import markdown_table
from boost_trl.version import __version__

from .policy_files import BACKBONE_FOLDER
from .value_heads import ValueHeadsConfig


ALGORITHMS = {
    "mc": "`mc`: Monte Carlo, Q is fitted to the returns",
    "ilql": "`ilql`: implicit language Q-learning",
}


@dataclass
class PolicyCard:
    """The card's parts that follow from how the policy was saved.

    Args:
        place (`str`): what opens it, a Hub id or a path.
        heads ([`ValueHeadsConfig`]): with β, prior and reference as saved.
        is_adapter (`bool`): whether the backbone is an adapter.
        why_not_plain (`str`, *optional*): why the folder is no plain causal LM; `None` if it is one.
        stop_text (`str`, *optional*): the text that ends a turn, where no token does.
        max_new_tokens (`int`, *optional*, defaults to `64`): in the example.
        chat_template_kwargs (`dict`, *optional*): what the chat template got beside the messages in training.
    """

    place: str
    heads: ValueHeadsConfig
    is_adapter: bool
    why_not_plain: str | None
    stop_text: str | None = None
    max_new_tokens: int = 64
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    def data(self, *, base_model: str | None, tags: list[str], datasets: list[str] | None = None) -> ModelCardData:
        """Only a plain causal LM may tell the Hub, and whoever reads the card, that any text-generation tool opens it."""
        if self.why_not_plain is not None:
            return ModelCardData(base_model=base_model, datasets=datasets, library_name="boost_trl", tags=tags)
        return ModelCardData(
            base_model=base_model,
            datasets=datasets,
            library_name="transformers",
            pipeline_tag="text-generation",
            tags=tags,
        )

    def usage(self) -> str:
        """A Python block that opens the policy and lets it speak."""
        opening = f'policy = ValuePolicy.from_pretrained("{self.place}")'
        if self.why_not_plain is not None:
            lines = ["from boost_trl import ValuePolicy", "from transformers import AutoTokenizer", "", opening]
        else:
            lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
            lines += [f'policy = AutoModelForCausalLM.from_pretrained("{self.place}")']
            lines += ["# or, with another β or prior: from boost_trl import ValuePolicy"]
            lines += [f"# {opening.removesuffix(')')}, beta=2.0)"]
        stop = "" if self.stop_text is None else f", stop_strings={[self.stop_text]!r}, tokenizer=tokenizer"
        arguments = "".join(f", {name}={value!r}" for name, value in self.chat_template_kwargs.items())
        lines += [
            f'tokenizer = AutoTokenizer.from_pretrained("{self.place}")',
            'messages = [{"role": "user", "content": "..."}]',
            "inputs = tokenizer.apply_chat_template(",
            f'    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True{arguments}',
            ")",
            f"reply = policy.generate(**inputs, max_new_tokens={self.max_new_tokens}{stop})",
            'print(tokenizer.decode(reply[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ]
        return "\n".join(["```python", *lines, "```"])

    def files(self) -> list[tuple[str, str]]:
        """Table of the repository's folders and files: path and contents."""
        kind = "The PEFT adapter" if self.is_adapter else "The language model"
        rows = [("this folder", "**The trained policy**, as a plain causal language model")]
        if self.why_not_plain is not None:
            rows = [("this folder", "**The trained policy**, which `ValuePolicy` opens")]
        return [
            *rows,
            ("`value_heads.*`", "The policy's Q (and V) heads, with its β and prior; `ValueHeads` opens them"),
            (f"`{BACKBONE_FOLDER}/`", f"{kind} under the heads, its output head untouched: **not the policy**"),
        ]

    def note(self) -> list[str]:
        """A paragraph for below the table, where the policy is no plain causal LM."""
        if self.why_not_plain is None:
            return []
        return [
            f"The policy is no plain causal language model: {self.why_not_plain}. `AutoModelForCausalLM` and `pipeline` open it "
            "too, once `from boost_trl import ValuePolicy` has run."
        ]


def value_policy_card(card: PolicyCard, tags: list[str] | None = None) -> ModelCard:
    """The card of a [`ValuePolicy`] that no trainer is at hand to describe."""
    heads = card.heads
    data = card.data(
        base_model=hub_name(heads.base_model_name_or_path), tags=sorted({"boost_trl", "trl", *(tags or [])})
    )
    settings = [
        ("algorithm", ALGORITHMS[heads.algorithm]),
        *policy_settings(heads, heads.beta, heads.prior),
    ]
    sections = [
        f"# {card.place.rpartition('/')[2]}",
        f"A policy that acts by the Q values of a language model with value heads, saved by boost_trl {__version__}.",
        *("## Use", card.usage()),
        *("## Files", table(card.files(), header=("where", "what")), *card.note()),
        *("## Settings", table(settings)),
        *("## Versions", table(versions(), header=("library", "version"))),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def policy_settings(heads: ValueHeadsConfig, beta: float, prior: str) -> list[tuple[str, str]]:
    """Lines of a table: how the policy is read off the heads."""
    logits = "β · Q" if prior == "none" else "log π + β · (Q − V), π the language model before training"
    return [
        ("policy (`prior`, `beta`)", f"`{prior}`, {beta:g}: softmax of {logits}"),
        ("return that Q stands for", f"{heads.return_shift:.4g} + {heads.return_scale:.4g} · Q"),
    ]


def versions() -> list[tuple[str, str]]:
    """Library and version, for a card."""
    libraries = {"TRL": "trl", "Transformers": "transformers", "PyTorch": "torch", "Datasets": "datasets"}
    return [("boost_trl", __version__), *((name, version(package)) for name, package in libraries.items())]


def table(rows: list[tuple[str, str]], header: tuple[str, str] = ("", "")) -> str:
    """A Markdown table of two columns."""
    return markdown_table([header, *rows], "ll")
