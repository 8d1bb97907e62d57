"""The models, one module each: a page of the book and its code."""
