"""What only the authors run: ``python -m studies.NAME --help`` in a checkout."""
