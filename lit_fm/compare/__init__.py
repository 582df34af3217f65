"""Which method: run folders read, compared, and put on one page."""
