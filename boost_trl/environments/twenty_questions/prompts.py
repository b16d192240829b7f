"""Prompts of both roles, from [B] Figure 4."""

AGENT_PROMPT = (
    "Welcome to the game of Twenty Questions! Your objective is to guess what the object is within twenty questions. "
    "At every turn, you will have the opportunity to ask a yes/no question and receive an answer from the oracle. You "
    "can ask twenty questions but must ask as few questions as possible."
)
ENVIRONMENT_PROMPT = (
    "You are the oracle in a game of Twenty Questions. A hidden target object has been chosen (provided in the goal). "
    "For every yes/no question the agent asks, respond with exactly 'Yes.' or 'No.' based solely on whether the answer "
    "is true of the target object. Do not reveal the object or provide any other information. Output only your "
    "one-word answer."
)


def environment_prompt(item: str) -> str:
    """Figure 4's prompt of the answerer, with the name of the secret `item` as its goal."""
    return f"{ENVIRONMENT_PROMPT}\nGoal: {item}"
