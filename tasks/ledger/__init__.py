"""The ledger: which jobs were accepted, who does them, which are finished. It keeps the promise that none is lost."""
