//! X.509 certificates: making a self-signed one, and saying what is wrong with one.
