"""Prompts of both roles, from [B] Figure 5, the bracketed goal filled in."""

from .market import Buyer


AGENT_PROMPT = (
    "You are an expert car salesperson conducting a price negotiation with a buyer. Your goal is to reach a sale at "
    "the highest possible price while keeping the buyer engaged. You may offer discounts and highlight vehicle "
    "features, but you must not accept a price below your minimum threshold. Output only a single dialogue turn."
)
ACTION_GRAMMAR = (
    'The last price that you name, as in "$21,500", is your offer; agreeing without a price takes the buyer\'s last '
    "counter-offer."
)
ENVIRONMENT_PROMPT = (
    "You are simulating a car buyer in a negotiation. Given the negotiation history, generate the buyer's next "
    "response. The buyer has a target price and preferred brand (provided in the goal). The buyer will counteroffer "
    "when the current price exceeds their target, accept if it meets or falls below their target, and walk away after "
    "a fixed number of failed rounds. Output only the buyer's next utterance, nothing else."
)


def environment_prompt(buyer: Buyer) -> str:
    """Figure 5's buyer prompt with its goal. The target is what good arguments move the rule-based buyer to: a tenth
    of the sticker price above the reservation on arrival, at most the budget."""
    target = min(buyer.budget, buyer.reservation + buyer.sticker // 10)
    return (
        f"{ENVIRONMENT_PROMPT}\n\nGoal: preferred brand {buyer.brand}, target price ${target:,}, walks away after "
        f"{buyer.patience} failed rounds, wants {', '.join(buyer.wanted)}, is {buyer.personality}."
    )
