"""The contracts that plugins implement, one file a concept. Importing them imports no torch."""
