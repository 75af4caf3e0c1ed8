"""What ends a nodelet that its scheduler does not take."""


class NotAcceptedError(Exception):
    """The scheduler does not take this nodelet; the text is what it said."""


class NotAuthorisedError(NotAcceptedError):
    """The scheduler does not take this nodelet's key."""
