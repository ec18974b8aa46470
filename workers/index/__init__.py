"""The index: the only folder that knows FAISS. Torch is imported first: the reverse order has crashed GPU machines."""

import torch  # noqa: F401  # must come before faiss, see above
