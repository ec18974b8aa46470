"""``python -m workers`` is ``aii worker``."""

from workers.cli import worker

worker(prog_name="aii worker")
