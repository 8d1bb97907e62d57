"""What fits say: one verb a file. Nothing here knows a model module."""
