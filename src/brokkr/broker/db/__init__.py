"""
PostgreSQL: the only place that speaks SQL.

Advisory locks in use, so that no two mean the same: (1, 0) selectors, (2, 0) the sweep of
stale claims, (3, hash of the request id) one claim request, (4, 0) migrations.
"""
