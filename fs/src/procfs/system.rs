//! The files of `/proc` that are about the system as a whole.

/// Adds them. Once, at boot.
pub fn register() {}
