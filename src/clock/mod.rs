//! Where the time comes from and how good it is.
