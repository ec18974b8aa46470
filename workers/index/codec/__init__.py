"""The trained, empty index: codes of features, targets for activation, searches over codes."""
