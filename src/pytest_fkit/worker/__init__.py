"""What runs in an xdist worker, and in the pytest process itself at ``-n0``."""
