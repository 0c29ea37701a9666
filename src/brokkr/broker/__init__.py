"""Program 1: the queue and its REST API."""
