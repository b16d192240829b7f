"""Preference pairs ranked by values and by likelihoods: scores of the answers, and what the weights know of swapped labels.

Rows come in pairs, the chosen answer before the rejected one.
"""

import numpy as np
import torch

from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.models.hidden_states import final_hidden_states
from boost_trl.selection import weights_auc


def last_answers(rows, tokenizer, max_tokens: int):
    """Token ids of every row and the positions of its last answer's tokens, end marker included."""
    answers = []
    for item in tokenize_trajectories(rows, tokenizer, max_length=max_tokens):
        breaks = np.flatnonzero(np.diff(item.action_positions) > 1)
        first = breaks[-1] + 1 if len(breaks) else 0
        answers.append((item.input_ids, item.action_positions[first:]))
    return answers


def batches(answers, pad_token_id: int, device, size: int = 8):
    """Rows by length: (row numbers, input_ids, attention_mask, row in the batch and position of every answer token)."""
    order = sorted(range(len(answers)), key=lambda index: len(answers[index][0]))
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        ids = np.full((len(chunk), len(answers[chunk[-1]][0])), pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, index in enumerate(chunk):
            tokens = answers[index][0]
            ids[number, : len(tokens)], mask[number, : len(tokens)] = tokens, 1
        row = np.repeat(np.arange(len(chunk)), [len(answers[index][1]) for index in chunk])
        position = np.concatenate([answers[index][1] for index in chunk])
        yield (np.array(chunk), *(torch.from_numpy(array).to(device) for array in (ids, mask, row, position)))


def answer_states(backbone, answers, pad_token_id: int, device):
    """What Q and the LM's output head read, batch by batch: row numbers, and for every answer token its state, its id and
    its row. Adapters are left as they are: on, after training."""
    backbone.eval()
    states = []
    for chunk, ids, mask, row, position in batches(answers, pad_token_id, device):
        with torch.no_grad():
            hidden = final_hidden_states(backbone, ids, mask)
        states.append((chunk, hidden[row, position - 1], ids[row, position], row))
    return states


def likelihoods(output_matrix, states, num_rows: int):
    """log π(answer | prompt) of the language model, (rows, 2): mean over the answer's tokens, and sum.

    Its logits are the output matrix times the state: right for most models, not for those that scale or cap logits.
    """
    scores = np.zeros((num_rows, 2))
    for chunk, hidden, actions, row in states:
        with torch.no_grad():
            log_probs = (hidden @ output_matrix.T).float().log_softmax(dim=-1)
        taken = log_probs.gather(1, actions.unsqueeze(1)).squeeze(1)
        for number, index in enumerate(chunk):
            scores[index] = taken[row == number].mean().item(), taken[row == number].sum().item()
    return scores


def q_scores(heads, states, num_rows: int):
    """Minimum over the Q heads of Q(s, a), (rows, 2): mean over the answer's tokens, and at its end marker."""
    scores = np.zeros((num_rows, 2))
    for chunk, hidden, actions, row in states:
        with torch.no_grad():
            q_taken = heads.q_statistics(hidden, actions)[0].amin(dim=0)
        for number, index in enumerate(chunk):
            scores[index] = q_taken[row == number].mean().item(), q_taken[row == number][-1].item()
    return scores * heads.config.return_scale + heads.config.return_shift


def wins(scores):
    """Per pair, whether the chosen answer (even rows) scores above the rejected one: 1, 0, or ½ for a tie."""
    difference = scores[::2] - scores[1::2]
    return (difference > 0) + 0.5 * (difference == 0)


def weight_statistics(weights, train) -> dict:
    """How well weights (rows,) tell right labels from swapped ones; `None` for constant weights.

    `auc_row`: over rows. `auc_pair`: over pairs, by the sum of their weights. `auc_contrast`: over pairs, by how much
    more the answer labelled +1 weighs than the one labelled −1; it is above ½ where weights favour the truly better
    *text* whatever its label, which the other two cannot see.
    """
    weights = np.asarray(weights)
    right = ~np.asarray(train["is_noise"])
    swapped_order = np.where(right[::2], 1, -1)
    contrast = (weights[::2] - weights[1::2]) * swapped_order
    return {
        "auc_row": weights_auc(weights, right),
        "auc_pair": weights_auc(weights[::2] + weights[1::2], right[::2]),
        "auc_contrast": weights_auc(contrast, right[::2]),
    }
