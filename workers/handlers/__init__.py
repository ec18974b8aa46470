"""The work behind each kind of job: from a request to its result document."""
