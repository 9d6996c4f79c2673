"""The rows of `mechanisms.py`: one file per claim, and what they share."""
