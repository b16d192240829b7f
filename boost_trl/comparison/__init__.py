"""Comparing methods on equal terms: the same model, data and updates for every method and control.

A comparison is made of cells, method × setting × seed (`cells`). A kind of experiment (`offline_rl`, `sft`) knows its methods
and how a cell is trained and judged; a cell's result has common fields and the kind's own metrics (`results`); the kind says
what the numbers mean, and `report` writes it down.
"""
