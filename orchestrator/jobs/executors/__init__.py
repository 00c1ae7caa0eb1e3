"""Where attempts run: one file an executor. Copy ``local.py`` to add one and hold it to ``contract.py``."""
