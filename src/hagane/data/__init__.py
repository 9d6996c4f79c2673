"""Token shards: how they are packed into rows, in which order rows are read, and the batch a micro-step sees."""
