"""hagane: make a language model from scratch."""
