"""From a bucket to jobs: each object that appears is submitted by its name; nothing is downloaded here.

notifications  what S3 says of new objects, as MinIO writes it into a Redis list or posts it to the gateway
bridge         the process: ``aii ingest``; notifications, and a sweep for the objects that none told of

A job's id follows from the object's bucket, key and ETag, so an object that is told of twice is one job.
"""
