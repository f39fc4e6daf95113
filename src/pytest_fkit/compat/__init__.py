"""Every use of a private name of pytest, pluggy or xdist, and what differs between versions.

Checked against pytest 7.0.0 to 9.2.0, pluggy 1.2 to 1.7 and pytest-xdist 3.6.1 to 3.8.0;
``tests/test_private_api.py`` fails first when one of them changes.
"""
