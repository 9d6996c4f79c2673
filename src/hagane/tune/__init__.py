"""From a model that continues text to one that answers: supervised steps on conversations with and without thinking."""
