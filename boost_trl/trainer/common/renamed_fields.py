"""Fields of a configuration that have another name now, and work under their former one for one version."""

import warnings


def take_former_name(config, former: str, name: str, stacklevel: int = 5) -> None:
    """Move what was given as `former`, a field that is `None` by default, to `name`, and warn.

    Args:
        stacklevel (`int`): of the warning; 5 where this is called by the `__post_init__` of a parent of the configuration.

    Raises:
        ValueError: if both are given, with different values.
    """
    value = getattr(config, former)
    if value is None:
        return
    warnings.warn(
        f"`{former}` is now `{name}`, with the same meaning; the old name will be removed in the next version.",
        FutureWarning,
        stacklevel=stacklevel,
    )
    if getattr(config, name) not in (type(config).__dataclass_fields__[name].default, value):
        raise ValueError(
            f"`{former}` is {value!r} and `{name}` {getattr(config, name)!r}: they are one setting; give the second only"
        )
    setattr(config, name, value)
    setattr(config, former, None)
