"""Value heads, the reweighting head, and the policy that value heads define."""

from .reweighting_head import ReweightingHead, ReweightingHeadConfig
from .value_heads import ValueHeads, ValueHeadsConfig
from .value_policy import ValuePolicy


__all__ = ["ReweightingHead", "ReweightingHeadConfig", "ValueHeads", "ValueHeadsConfig", "ValuePolicy"]
