"""Is an answer right? Rules for numbers and words, and for problems of the generator."""
