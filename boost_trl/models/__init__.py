"""Value heads, the reweighting head, and the policy that value heads define."""

from .value_heads import ValueHeads, ValueHeadsConfig


__all__ = ["ValueHeads", "ValueHeadsConfig"]
