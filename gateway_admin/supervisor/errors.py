"""What keeps `manage.py up` from starting. Each message is one line and says what to do."""


class StartError(Exception):
    """The product cannot start; the message is for the person at the terminal."""
