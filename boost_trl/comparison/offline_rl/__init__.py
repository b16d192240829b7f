"""Offline RL: methods, training, games, and the three worlds that they are compared in."""
