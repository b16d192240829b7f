"""Choices of the selector's settings; without torch, so that configurations can be checked before it is loaded."""

SELECTORS = ("validated", "rank", "bds", "bmo", "bmo_exact", "mixing", "uniform")
OPTIMIZERS = ("sparse", "adam", "sgd")
WEIGHT_SCALES = ("mean_one", "simplex")
LEVELS = ("sequence", "token", "geometric")
RESPONSE_WEIGHTINGS = ("importance", "softmax", "none")
