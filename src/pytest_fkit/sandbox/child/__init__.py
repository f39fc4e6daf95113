"""Children: processes that run one test each."""
