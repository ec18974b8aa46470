"""The commands of ``aii`` that need a worker's packages; nothing heavy is imported before a command runs."""
