"""Several IO processes under gunicorn."""
