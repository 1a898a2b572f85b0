"""Check the health of a server: `python healthy.py URL` exits with 0 if it answers 200."""

import http.client
import sys
from urllib.parse import urlsplit

address = urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(address.netloc, timeout=5)
try:
    connection.request("GET", address.path)
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
if status != 200:
    sys.exit(f"{sys.argv[1]} answered {status}; expected 200")
