"""Options of an environment, as a command line or a YAML file has them."""

import json
from typing import Any


class EnvironmentOptions:
    """Part of a dataclass of options, one of which is `environment_kwargs`."""

    environment_kwargs: dict[str, Any] | str | None

    @property
    def environment_options(self) -> dict[str, Any]:
        """`environment_kwargs` by name, from a mapping or from JSON.

        Raises:
            ValueError: for what is neither.
        """
        value: Any = self.environment_kwargs
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"`environment_kwargs` is {value!r}, which is no JSON: {error}") from None
        if not isinstance(value, dict | None):
            raise ValueError(f'`environment_kwargs` must be a mapping, such as {{"world": "full"}}, got {value!r}')
        return dict(value or {})
