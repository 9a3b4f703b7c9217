"""Applications that the tests run on real servers."""
