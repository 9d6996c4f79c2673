"""How good a model is: bits per byte and per parallel sentence, right answers by family, language and mode; all with intervals."""
