"""Forms of supply. They collect and show; what is right is decided by the services."""
