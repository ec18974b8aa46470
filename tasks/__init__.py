"""The contract between those who ask for work and those who do it: messages, ledger, storage, settings."""
