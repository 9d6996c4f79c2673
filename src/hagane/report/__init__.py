"""Facts become one page: everything a run wrote down, read back and shown in a self-contained report.html."""
