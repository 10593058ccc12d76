"""People, roles, API tokens, login, audit trail."""
