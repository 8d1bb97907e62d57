"""From a person's table to a frame that a model takes: rules for columns, files, numbers, effect sizes."""
