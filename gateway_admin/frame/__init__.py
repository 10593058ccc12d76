"""What every page shares: navigation, components, template tags."""
