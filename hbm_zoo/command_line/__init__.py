"""From a shell to a report, without writing Python."""
