"""Comparing methods: the same pool, policy updates and games for the paper's methods and the controls."""
