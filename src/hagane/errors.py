"""Errors that are the user's to mend: one sentence with the setting or file at fault and what to do.

`cli` prints these without a traceback; everything else is a bug and shows one.
"""


class HaganeError(Exception):
    """Base of every error with a message written for the user."""


class RecipeError(HaganeError):
    """A recipe, setting or budget that cannot be what the user meant."""


class DataError(HaganeError):
    """A file of the corpus that is missing, damaged or of the wrong kind."""


class RunError(HaganeError):
    """A run folder that cannot be used as asked: locked, incomplete, of another version, on a full disk."""


class TrainingError(HaganeError):
    """Training cannot go on: a loss that is not finite, a broken checkpoint, too little memory."""
