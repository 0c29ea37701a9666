"""The work type ``job``: a Job of Kubernetes' own."""
