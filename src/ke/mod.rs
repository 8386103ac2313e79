//! NTS key establishment (RFC 8915 section 4) over TLS 1.3.
