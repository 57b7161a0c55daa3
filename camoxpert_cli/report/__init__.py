"""One page, and one picture, that show what a network learned and what it finds."""
