"""The trained, empty index: codes of features, targets for activation, searches over codes.

<<<<<<< HEAD
The only package that knows FAISS. Torch is imported first: the reverse order has crashed GPU machines.
"""

import torch  # noqa: F401  # must come before faiss, see above
=======
Torch is imported before FAISS: the reverse order has crashed GPU machines.
"""

import torch  # noqa: F401
>>>>>>> 39aec27 (Help and completion import nothing heavy; one mapping from error to exit code, one progress bar, no traceback)
