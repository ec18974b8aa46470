"""``python -m workers`` is ``aii worker``."""

from workers.commands.worker import worker

worker(prog_name="aii worker")
