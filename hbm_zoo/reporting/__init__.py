"""From fits to a folder that can be handed on: the findings, their pictures, their definitions."""
