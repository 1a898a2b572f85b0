-- Run once, on a new PostgreSQL: a database and a role for each server, closed to the other.
\set ON_ERROR_STOP on
-- A statement that fails would be logged as it is, with the password in it.
SET log_min_error_statement = panic;
\set mlflow_password `printenv MLFLOW_DATABASE_PASSWORD`
\set prefect_password `printenv PREFECT_DATABASE_PASSWORD`

CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;

CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE DATABASE prefect OWNER prefect;
REVOKE CONNECT ON DATABASE prefect FROM PUBLIC;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
