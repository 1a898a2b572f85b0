#!/usr/bin/env bash
# Makes sure that there is a Chromium for the tests that look at pages. Called by the Makefile.
set -euo pipefail
if command -v chromium > /dev/null || command -v chromium-browser > /dev/null; then exit 0; fi
[ "$(id -u)" -eq 0 ] && sudo="" || sudo="sudo -n"
if command -v apt-get > /dev/null && { [ -z "$sudo" ] || $sudo true 2> /dev/null; }; then
  echo "installing chromium" >&2
  $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq chromium > /dev/null
else
  echo "chromium is not installed and cannot be: the tests that look at pages are skipped" >&2
fi
