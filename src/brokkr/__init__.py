"""Brokkr's work system: a broker, an agent for each cluster, and a local mode."""

__version__ = "0.1.0"
