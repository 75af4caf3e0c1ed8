"""Which colour stands for which user: as few as can be told apart, the same as long as it runs."""

COLOURS = 10  # of style.css: user-0 to user-9


class Colours:
    """Gives each user a colour, in the order in which they are seen."""

    def __init__(self) -> None:
        """Begin with none."""
        self._numbers: dict[str, int] = {}

    def of(self, user: str) -> str:
        """Return the class of a user's colour; that of nobody in particular if there is no name."""
        if not user:
            return "user-other"
        number = self._numbers.setdefault(user, len(self._numbers))
        return f"user-{number % COLOURS}"
