"""An endless shuffled stream of row numbers with a position that can be saved."""

import torch


class EndlessSampler:
    """Yields row numbers 0..n-1 in a fresh random order each pass, for ever. The same on every process.

    Args:
        num_rows (`int`): n.
        seed (`int`): fixes every order.
    """

    def __init__(self, num_rows: int, seed: int):
        self.num_rows = num_rows
        self.seed = seed
        self.position = 0
        self._pass = -1
        self._order: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next `count` row numbers."""
        taken = []
        while len(taken) < count:
            number, offset = divmod(self.position, self.num_rows)
            if number != self._pass:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
                self._order = torch.randperm(self.num_rows, generator=generator).tolist()
                self._pass = number
            piece = self._order[offset : offset + count - len(taken)]
            taken += piece
            self.position += len(piece)
        return taken
