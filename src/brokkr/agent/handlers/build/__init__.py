"""Container image builds, through Shipwright."""
