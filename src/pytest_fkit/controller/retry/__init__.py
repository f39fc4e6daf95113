"""GPU errors: tests that are tried again elsewhere, and workers that are not trusted."""
