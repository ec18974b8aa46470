<<<<<<< HEAD
"""The index of features: codes, collections of them, and their maintenance."""
=======
"""The index: the only folder that knows FAISS."""
>>>>>>> 39aec27 (Help and completion import nothing heavy; one mapping from error to exit code, one progress bar, no traceback)
