//! The messages between `quintet` on the host and its PID 1 in the guest.
