"""A client of OpenEnv that echoes."""

import asyncio
from dataclasses import dataclass


# OpenEnv: a client as openenv-core's, asynchronous, bound to the loop in which it connected.


@dataclass
class Result:
    observation: str
    reward: float | None
    done: bool


class EchoClient:
    clients = 0

    def __init__(self):
        EchoClient.clients += 1
        self.loop = None

    async def reset(self, **kwargs):
        self.loop = self.loop or asyncio.get_running_loop()
        self.left, self.kwargs = 3, kwargs
        return Result(f"seed {kwargs['seed']}", None, False)

    async def step(self, action):
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.left -= 1
        return Result(action["message"], None if self.left else 2, not self.left)

    async def close(self):
        self.loop = "closed"


def to_echo(text):
    if not text:
        raise ValueError("say something")
    return {"message": text}
