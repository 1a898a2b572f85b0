#!/bin/sh
# The MLflow server with accounts. Everything comes from the environment, so that no password is
# in the process list; only the account database must be named in a file.
set -eu
umask 077
draft="$MLFLOW_AUTH_CONFIG_PATH.$$"
# MLflow reads the file with interpolation: a percent sign is written twice.
uri=$(printf %s "$MLFLOW_BACKEND_STORE_URI" | sed 's/%/%%/g')
printf '[mlflow]\ndefault_permission = READ\ndatabase_uri = %s\n' "$uri" > "$draft"
mv "$draft" "$MLFLOW_AUTH_CONFIG_PATH"
exec mlflow server --app-name basic-auth
