"""One page, and one image, that show what a network learned and what it finds."""
