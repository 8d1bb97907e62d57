"""From a model and its data to a fit that describes itself: draw, complete, summarise, check, leave out."""
