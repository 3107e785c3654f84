"""The ops, by family.  Each is one line: an implementation and a rule per input."""
