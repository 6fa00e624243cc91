from tests.helpers.pairs import scenes  # noqa: F401
