"""For those who have images: hand them in, wait for them, ask about copies. Loads neither torch nor FAISS.

from producer import Producer

producer = Producer.connect()
job = producer.activate("photo.jpg")
result = job.wait(timeout_s=60)
producer.download_protected(result, "protected.jpg")
"""

from producer.client import Job, Producer

__all__ = ["Job", "Producer"]
