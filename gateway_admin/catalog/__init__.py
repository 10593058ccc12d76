"""Supply: environments, providers, credentials, models, deployments, chains, price book."""
