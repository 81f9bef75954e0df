"""HTTP in, HTTP out: the API that clients speak to."""
