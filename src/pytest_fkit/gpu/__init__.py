"""GPUs: finding them, dividing them among workers, and what a worker's environment says of them."""
