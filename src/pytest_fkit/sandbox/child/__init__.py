"""Children: run one test each."""
