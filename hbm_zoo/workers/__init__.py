"""Many pieces of work, whoever does them."""
