"""Every use of a private name of pytest, pluggy or xdist, and what differs between versions.

``tests/test_private_api.py`` fails first when one of them changes; :mod:`.versions` says with which
versions it passed. Of pluggy, 1.2 to 1.7.
"""
