"""The door to the Kubernetes API."""
