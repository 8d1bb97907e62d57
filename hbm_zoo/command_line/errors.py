"""What the command line says of input that cannot be used."""


class BadInput(Exception):
    """Something a person gave that cannot be used, in one sentence for them."""
