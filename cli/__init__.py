"""`epochd`: what a person types. Speaks only HTTP, except `up` and `demo`, which start the local stack."""
