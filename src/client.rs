//! The client side of NTS: the engine turned round.
