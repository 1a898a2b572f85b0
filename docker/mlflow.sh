#!/bin/sh
# The MLflow server with accounts. Everything comes from the environment, so that no password is
# in the process list; only the account database must be named in a file.
set -eu
umask 077
draft="$MLFLOW_AUTH_CONFIG_PATH.$$"
# MLflow reads the file with interpolation: a percent sign is written twice.
uri=$(printf %s "$MLFLOW_BACKEND_STORE_URI" | sed 's/%/%%/g')
# A password is compared with its hash once a minute: to do it for each of the hundred requests that
# register a model would take most of a minute.
printf '[mlflow]\ndefault_permission = READ\ndatabase_uri = %s\nauth_cache_ttl_seconds = 60\n' \
  "$uri" > "$draft"
mv "$draft" "$MLFLOW_AUTH_CONFIG_PATH"
exec mlflow server --app-name basic-auth
