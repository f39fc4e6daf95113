"""GPU errors: tests that get another attempt elsewhere, workers that are not trusted."""
