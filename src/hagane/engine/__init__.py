"""Generation with a cache: batches of ragged rows, sampling, and reading what a chat model answered."""
