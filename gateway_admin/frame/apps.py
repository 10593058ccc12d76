"""The frame around every page: navigation, components, formats. No models."""

from django.apps import AppConfig


class FrameConfig(AppConfig):
    """Template tags and context shared by all pages."""

    name = "gateway_admin.frame"
    label = "frame"
