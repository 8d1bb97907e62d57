"""Pictures of fits: one picture a file. Each pooling keeps one colour everywhere."""
