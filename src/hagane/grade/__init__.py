"""Is an answer right? The strict rule for problems of the generator."""
