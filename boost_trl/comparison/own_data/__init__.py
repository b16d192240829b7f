"""Comparisons on a pool and trusted rows of one's own, where nobody knows which rows are good: methods are judged on trusted rows
that none of them has seen."""
