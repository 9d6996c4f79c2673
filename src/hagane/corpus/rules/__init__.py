"""Small rules that mend a document or leave it out: each has a name, a reason, and thresholds that a language's own text sets."""
