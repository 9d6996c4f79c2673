"""From files as found to documents that can be trained on: read, checked, deduplicated, split, mixed, with their licences."""
