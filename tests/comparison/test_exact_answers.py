import pytest
import torch

from boost_trl.comparison.sft.exact_answers import exact_answers


QUESTIONS = ["is it big ?", "red", "hot tall small old .", "yes no maybe is"]


def greedy_answer(model, tokenizer, question, length):
    """Token by token, one question at a time, without padding or a cache."""
    ids = tokenizer(question)["input_ids"]
    start = len(ids)
    while len(ids) < start + length:
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 3, 60])
def test_share_against_one_question_at_a_time(make_tiny_model, tiny_tokenizer, batch_size):
    model = make_tiny_model("llama", seed=3).eval()
    answers = [greedy_answer(model, tiny_tokenizer, question, 5) for question in QUESTIONS]
    assert len(set(answers)) > 1

    def share(expected):
        return exact_answers(model, tiny_tokenizer, QUESTIONS, expected, max_new_tokens=5, batch_size=batch_size)

    assert share(answers) == 1
    assert share([f" {answers[0]}\n", "yes yes", answers[2], "no no no"]) == 0.5
    # An answer that goes on after the right one is not right.
    assert share([answer.rsplit(" ", 1)[0] for answer in answers]) == 0
