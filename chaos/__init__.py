"""
Runs the whole system, does it harm at random, and looks whether it keeps its promises.

``docs/explanation/faults.md`` says how, and what has come of it.
"""
