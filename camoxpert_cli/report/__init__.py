"""The HTML report of an evaluation and the image of the training curves."""
