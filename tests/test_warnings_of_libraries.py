"""What other libraries say of our doings goes to people who did nothing wrong; each cause is mended here."""

import os
import subprocess
import sys


SCRIPT = """
import sys
from datasets import Dataset
from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer
from boost_trl import BilevelSFTSelfRefineConfig, BilevelSFTSelfRefineTrainer
from boost_trl.environments.embedded_lm import END, build_from_texts

sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 1}
texts = [f"a{END}", f"a b c{END}"]
model, tokenizer = build_from_texts("test", "a b c".split(), [(texts, 2)], cache_dir=sys.argv[1], **sizes)
model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token = None  # as GPT-2's
rows = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}], "rewards": [float(i)]}
    for i, text in enumerate(["a", "b", "c", "a b", "b c", "c a", "a c", "b a"])
]
args = BilevelOfflineRLConfig(
    sys.argv[1], max_steps=2, auxiliary_steps=1, primary_steps=1, report_to="none", cache_dir=sys.argv[1]
)
rows = Dataset.from_list(rows)
trainer = BilevelOfflineRLTrainer(model, args, train_dataset=rows, validation_dataset=rows, processing_class=tokenizer)
trainer.train()
trainer.save_model()
args = BilevelSFTSelfRefineConfig(sys.argv[1], max_steps=1, bf16=False, report_to="none")
rows = rows.remove_columns("rewards")
BilevelSFTSelfRefineTrainer(
    model, args, train_dataset=rows, validation_dataset=rows, processing_class=tokenizer
).train()
"""


def test_pretraining_training_and_saving_make_no_library_warn(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    without_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=without_gpu).stderr
    for complaint in ("gemm_4bit", "loss_type", "attention_mask", "real_accelerator", "PAD/BOS/EOS", "Warning"):
        assert complaint not in shown, shown
