"""How a job reaches its handler and is closed: Celery's consumers, leases, the reconciler."""
