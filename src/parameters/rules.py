"""The rules that values of `params.yaml` must obey, each broken one told in a sentence."""


class ConfigError(ValueError):
    """A mistake in params.yaml or in an override; the message is one sentence that names the key."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def require_choice(key: str, value: object, choices: tuple) -> None:
    require(value in choices, f"{key} is {value!r}; choose one of {', '.join(map(str, choices))}.")


def require_positive(key: str, value: float) -> None:
    require(value > 0, f"{key} is {value}; it must be greater than 0.")


def require_share(key: str, value: float) -> None:
    require(0 <= value <= 1, f"{key} is {value}; it must lie between 0 and 1.")
