"""Why nothing, or no more, was copied."""


class CannotCopy(Exception):
    """One sentence for the operator."""


class Differs(CannotCopy):
    """What was copied is not what was read."""


class Unknown(CannotCopy):
    """Everything was copied, and the answer was lost whether this database takes writes now."""
