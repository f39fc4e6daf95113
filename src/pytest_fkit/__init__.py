"""Run every pytest test in a process of its own.

pytest rewrites the assertions of plugins, and warns if one was imported before, as in a host that
is started afresh; hence this word: PYTEST_DONT_REWRITE
"""

__version__ = "1.0.0.dev0"
