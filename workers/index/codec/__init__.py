"""The trained, empty index: codes of features, targets for activation, searches over codes.

The only package that knows FAISS. Torch is imported first: the reverse order has crashed GPU machines.
"""

import torch  # noqa: F401  # must come before faiss, see above
