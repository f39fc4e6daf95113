"""Dividing GPUs among workers, and what an environment says of them."""
