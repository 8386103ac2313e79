//! NTS cookies and the ring of master keys.
