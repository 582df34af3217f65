"""Data: rows, templates, examples, tokens, and the order in which they are learnt."""
