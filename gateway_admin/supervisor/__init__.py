"""`manage.py up`: embedded servers and the processes of the product under one supervisor."""
