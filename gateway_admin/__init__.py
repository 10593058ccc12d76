"""Control plane of the gateway: dashboard, API, worker."""
