#!/usr/bin/env python
"""Gateway Admin's command line: `manage.py help` lists the commands."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_admin.settings")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = ".".join(str(part) for part in sys.version_info[:3])
        sys.exit(f"Gateway Admin needs Python 3.11 to 3.13; this is {found}.")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))  # names the setting and what to do


if __name__ == "__main__":
    main()
