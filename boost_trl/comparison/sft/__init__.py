"""Supervised fine-tuning on a pool of mixed quality: methods, training and judging."""
