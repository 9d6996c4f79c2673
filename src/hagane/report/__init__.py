"""Facts become one page: everything a run wrote down, or a plan says, read back and shown in a self-contained page."""
