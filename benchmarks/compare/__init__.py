"""pytest-fkit beside plain pytest, pytest-xdist and its peers, over the same generated suites."""
