"""What softgrad promises, as tests: each file is named for a promise."""
